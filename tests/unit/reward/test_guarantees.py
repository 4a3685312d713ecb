"""Every guarantee of docs/judge.md names a test that exists."""

import ast
import re
from pathlib import Path

REPO_ROOT = Path(__file__).resolve().parents[3]
ROW = re.compile(
    r"^\| (?P<sentence>[^|]+\.) \| `(?P<file>tests/[^`:]+)::(?P<test>\w+)` \|$", re.MULTILINE
)


def _guarantees() -> list[tuple[str, str, str]]:
    text = (REPO_ROOT / "docs" / "judge.md").read_text()
    section = text.split("## What is guaranteed\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and "tests/" in line]
    found = [(m["sentence"], m["file"], m["test"]) for m in ROW.finditer(section)]
    assert len(found) == len(rows)
    return found


def test_every_sentence_of_the_table_names_a_test() -> None:
    guarantees = _guarantees()
    assert len(guarantees) > 20
    for sentence, file, test in guarantees:
        tree = ast.parse((REPO_ROOT / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in names, f"{sentence} {file} has no {test}"
