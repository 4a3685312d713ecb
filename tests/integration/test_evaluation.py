"""The tiny model, evaluated through vLLM on the CPU: killed in the middle, and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu import environment
from recipe.cpu.micro_apps import write_micro_apps
from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.data.apps import PrepareOptions, PromptStyle, prepare

LIMIT_S = 180.0
PROBLEMS, SAMPLES = 6, 3
ENGINE = {
    "dtype": "float32",
    "enforce_eager": "true",
    "max_model_len": "1024",
    "max_num_seqs": "2",  # so that answers come one after the other, and a kill finds some missing
    "kv_cache_memory_bytes": "67108864",
}
ADD = {
    "task_id": "HumanEval/1000",
    "prompt": 'def add(a, b):\n    """Add two numbers."""\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(add):\n    assert add(1, 2) == 3\n    assert add(0, 5) == 5\n",
}

pytestmark = pytest.mark.vllm_kernels


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    source = tmp_path / "micro_apps"
    write_micro_apps(source, PROBLEMS, Split.TEST, seed=0)
    options = PrepareOptions(data_source="micro_apps", prompt_style=PromptStyle.BARE)
    prepare(str(source), tmp_path, splits=("test",), options=options)
    humaneval = tmp_path / "humaneval.jsonl"
    humaneval.write_text(json.dumps(ADD) + "\n")
    return [
        *(sys.executable, "-m", "recipe.evaluation", "evaluate"),
        *("--model", str(ensure_checkpoint()), "--out", str(tmp_path / "out")),
        *("--benchmark", f"apps={tmp_path / 'test.parquet'}", f"humaneval={humaneval}"),
        *("--protocol", "bigcode", "--samples", str(SAMPLES), "--temperature", "0.7"),
        *("--max-tokens", "128", "--pass-at", "1", str(SAMPLES)),
        *(word for key, value in ENGINE.items() for word in ("--engine", f"{key}={value}")),
    ]


def records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_an_evaluation_that_was_killed_is_finished_by_the_same_command(
    command: list[str], tmp_path: Path
) -> None:
    samples = tmp_path / "out" / "samples" / "apps.apps.jsonl"
    variables = os.environ | environment()
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(
            command, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + LIMIT_S
        while len(records(samples)) < 3:
            assert first.poll() is None, (tmp_path / "first.log").read_text()[-4000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    kept = records(samples)
    assert 3 <= len(kept) < PROBLEMS * SAMPLES
    with samples.open("ab") as file:
        file.write(b'{"problem_id": "torn')

    second = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=LIMIT_S)
    assert second.returncode == 0, second.stderr[-4000:]
    assert f"{len(kept)} samples are there" in second.stderr
    assert "a torn last line was dropped" in second.stderr
    found = records(samples)
    assert found[: len(kept)] == kept
    asked = {(record["problem_id"], record["sample"]) for record in found}
    assert len(asked) == len(found) == PROBLEMS * SAMPLES

    apps, humaneval = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (apps["benchmark"], apps["problems"], apps["fewest"]) == ("apps", PROBLEMS, SAMPLES)
    assert apps["format"]["value"] > 0.5  # it was trained to fence its programs
    assert apps["pass_at"]["1"]["value"] > 0.0
    assert (humaneval["benchmark"], humaneval["problems"]) == ("humaneval", 1)
    assert "strict accuracy" in second.stdout
