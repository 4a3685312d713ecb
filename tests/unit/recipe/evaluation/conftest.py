"""Small benchmarks as files, and an engine that answers from a table."""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation.generate import Completion, Request
from recipe.evaluation.protocols import Prompt

HUMANEVAL = {
    "task_id": "HumanEval/7",
    "prompt": '\n\ndef add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(0, 4) == 4\n",
}
MBPP = {
    "task_id": 9,
    "text": "Write a function to double a number.",
    "code": "def helper(x):\r\n  return x\r\ndef double(x):\r\n  return helper(x) * 2",
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2"],
    "test_setup_code": "",
}
APPS = {
    "data_source": "micro_apps",
    "prompt": [{"role": "user", "content": "Print twice the number."}],
    "ability": "code",
    "reward_model": {
        "style": "rule",
        "ground_truth": json.dumps({"inputs": ["2\n", "5\n"], "outputs": ["4\n", "10\n"]}),
    },
    "extra_info": {
        "index": 0,
        "problem_id": "0003",
        "split": "test",
        "difficulty": "interview",
        "starter_code": "",
        "reference_solution": "print(2 * int(input()))\n",
    },
}


class TableEngine:
    """Answers each problem's samples with the texts of a table; `limit` answers, then it dies."""

    def __init__(self, answers: Mapping[str, Sequence[str]], limit: int = 10**9) -> None:
        self.answers, self.limit = answers, limit
        self.asked: list[tuple[str, int]] = []

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        return prompt.text or prompt.messages[-1].content + prompt.opening, not prompt.messages

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        for request in requests:
            if len(self.asked) == self.limit:
                raise KeyboardInterrupt
            self.asked.append((request.problem_id, request.sample))
            text = self.answers[request.problem_id][request.sample]
            yield request, Completion(text, "stop", len(text))


@pytest.fixture
def table_engine() -> type[TableEngine]:
    return TableEngine


@pytest.fixture
def samples() -> dict[str, dict[str, Any]]:
    """One record of each form."""
    return {"humaneval": HUMANEVAL, "mbpp": MBPP, "apps": APPS}


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as JSON lines, packed where the name says so, and returns the path."""

    def write(name: str, *records: object) -> Path:
        text = "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write
