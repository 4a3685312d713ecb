"""Third-party packages that programs may import: folders, and modules that are a single file."""

import importlib
from pathlib import Path

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import parse_input_output
from reward.sandbox.client import package_paths
from reward.sandbox.packages import installed
from reward.verdict import Verdict

ONE = parse_input_output({"inputs": [""], "outputs": ["1\n"]})


def _location(name: str) -> Path:
    found = importlib.import_module(name).__file__
    assert found
    return Path(found)


def test_a_package_is_a_folder_and_a_module_its_file() -> None:
    paths = package_paths(["yaml", "six", "py", "no_such_package", "sys", "json.decoder"])
    assert paths == {
        "yaml": str(_location("yaml").parent),
        "six": str(_location("six")),
        "py": str(_location("py")),
        "json.decoder": str(_location("json.decoder")),
    }


@pytest.mark.parametrize("name", ["yaml", "six", "typing_extensions"])
def test_programs_import_what_is_listed_and_read_nothing_beside_it(name: str) -> None:
    other = _location("mypy_extensions")
    with Judge(JudgeConfig(workers=1, packages=name, retries=0)) as judge:
        for code, verdict in (
            (f"import {name}\nprint(1)", Verdict.ACCEPTED),
            ("import mypy_extensions\nprint(1)", Verdict.RUNTIME_ERROR),
            (f"open({str(other)!r})\nprint(1)", Verdict.RUNTIME_ERROR),
        ):
            if judge.level >= 2 or "open" not in code:
                result = judge.judge(ONE, code)
                assert result.verdict == verdict, (code, result.detail)


def test_a_module_within_a_package_that_is_missing_is_not_installed() -> None:
    assert installed("no_such_package.module") is None
