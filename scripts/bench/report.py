"""Time and memory of the report on one long run, beside plain parsing of its episodes.

    python scripts/bench/report.py [--steps 150] [--rollouts 512] [--tokens 200] [--folder DIR]
                                   [--generate-only]

Generates a run folder in which every rollout was refined (in a real run perfect ones are not, so
its file is smaller), then runs, each in a process of its own, which shows its peak memory:

    parse    json.loads on every line of episodes.jsonl, the records dropped at once: the baseline
    report   python -m recipe.analysis.report RUN --out DIR, pictures included
    page     the same with --page-only, as the live mode does

The ratio is one of CPU times, which a busy machine changes little.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = 128
EDITED_SHARE = 0.08
VERBATIM_EVERY = 10
ACCEPTED_EVERY = 4
VOCABULARY = (" return", " for", " in", "(", ")", "\n   ", " x", "=", " total", "+", "1", ":", ",")
PARSE = """
import json, sys
with open(sys.argv[1], "rb") as file:
    for line in file:
        json.loads(line)
"""


def main() -> None:
    """Generate, measure, print."""
    options = _parse_options()
    if options.generate_only:
        generate(options.folder, options.steps, options.rollouts, options.tokens)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = Path(folder) / "run"
        episodes = generate(run, options.steps, options.rollouts, options.tokens)
        size_mb = (run / "episodes.jsonl").stat().st_size / 1e6
        print(f"{options.steps} steps × {options.rollouts} rollouts: {episodes} episodes of about")
        print(f"{options.tokens} tokens, {size_mb:.0f} MB\n")
        print(f"{'':8}{'wall (s)':>10}{'CPU (s)':>10}{'× parse':>10}{'peak (MiB)':>12}", flush=True)
        report = [*("-m", "recipe.analysis.report"), str(run), *("--out", str(Path(folder) / "r"))]
        contenders = {
            "parse": ["-c", PARSE, str(run / "episodes.jsonl")],
            "report": report,
            "page": [*report, "--page-only"],
        }
        baseline_s = 0.0
        for name, arguments in contenders.items():
            wall_s, cpu_s, peak_mib = measure(arguments)
            baseline_s = baseline_s or cpu_s
            ratio = cpu_s / baseline_s
            row = f"{name:8}{wall_s:10.1f}{cpu_s:10.1f}{ratio:10.2f}{peak_mib:12.0f}"
            print(row, flush=True)


def _parse_options() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rollouts", type=int, default=512, help="a step")
    parser.add_argument("--tokens", type=int, default=200, help="mean length of a response")
    parser.add_argument("--folder", type=Path, help="where to work, default: the system's")
    parser.add_argument(
        "--generate-only", action="store_true", help="write the run to --folder, measure nothing"
    )
    options = parser.parse_args()
    if options.generate_only and options.folder is None:
        parser.error("--generate-only needs --folder, which it makes")
    return options


def measure(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Wall time and CPU time in seconds, and peak resident memory in MiB, of a Python process.

    Raises RuntimeError if it fails.
    """
    command = [sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPO_ROOT)}
    with open(os.devnull, "wb") as nothing:
        started = time.monotonic()
        redirect = [(os.POSIX_SPAWN_DUP2, nothing.fileno(), 1)]
        pid = os.posix_spawn(sys.executable, command, environment, file_actions=redirect)
        _, status, usage = os.wait4(pid, 0)
        wall_s = time.monotonic() - started
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with wait status {status}")
    return wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def generate(run: Path, steps: int, rollouts: int, tokens: int) -> int:
    """Write a run folder and return how many episodes it holds."""
    run.mkdir(parents=True)
    rng = random.Random(0)
    info = {"arm": "dynamic_sft", "setting": "bench", "seed": 0, "total_steps": steps}
    (run / "run.json").write_text(json.dumps(info | {"kind": "dynamic", "inject": "sft"}))
    with (run / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            file.write(json.dumps({"step": step, "data": _metrics(step, rollouts, rng)}) + "\n")
    bodies = [json.dumps(_episode(index, tokens, rng))[1:] for index in range(TEMPLATES)]
    with (run / "episodes.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            lines = (f'{{"step": {step}, {rng.choice(bodies)}\n' for _ in range(rollouts))
            file.writelines(lines)
    return steps * rollouts


def _metrics(step: int, rollouts: int, rng: random.Random) -> dict[str, float]:
    """What the report draws, and as many names again that it does not."""
    drawn = {
        "critic/score/mean": rng.gauss(0.2 + step / 1000, 0.05),
        "monitor/kl_to_reference": rng.expovariate(1.0),
        "constraint/ce_mean": rng.expovariate(2.0),
        "constraint/improvement_ratio": 0.3 / (1 + step / 20),
        "refiner/copied_token_ratio": 1 - EDITED_SHARE,
        "refiner/edit_distance_mean": rng.uniform(5, 9),
        "refiner/reward_gain_mean": rng.uniform(0.2, 0.4),
        "refiner/skipped_perfect_total": 0.0,
        "refiner/verbatim_total": float(rollouts // VERBATIM_EVERY),
        "refiner/failed_total": 0.0,
        "monitor/entropy": rng.uniform(0.2, 0.3),
        "monitor/group_reward_std": rng.uniform(0.2, 0.3),
        "response_length/mean": rng.uniform(190, 210),
        "timing_s/step": rng.uniform(100, 120),
        "timing_s/gen": rng.uniform(50, 60),
        "timing_s/refine_wait": rng.uniform(1, 5),
        "timing_s/update_actor": rng.uniform(30, 40),
    }
    return drawn | {f"other/{number}": rng.random() for number in range(60)}


def _episode(index: int, tokens: int, rng: random.Random) -> dict[str, Any]:
    """All of an episode but its step: verbatim, accepted or rejected in turn."""
    answer = list(_words(max(2, round(rng.gauss(tokens, tokens / 4))), rng))
    verbatim, accepted = index % VERBATIM_EVERY == 0, index % ACCEPTED_EVERY == 1
    copied = [int(verbatim or rng.random() > EDITED_SHARE) for _ in answer]
    refined = [old if kept else " edit" for old, kept in zip(answer, copied, strict=True)]
    return {
        "uid": f"{rng.getrandbits(128):032x}",
        "problem_id": f"bench-{index}",
        "prompt": "".join(_words(tokens, rng)),
        "answer": "".join(answer),
        "refined": "".join(refined),
        "reward": -0.3,
        "refined_reward": 1.0 if accepted else -0.3,
        "verdict": "wrong_answer",
        "refined_verdict": "accepted" if accepted else "wrong_answer",
        "accepted": accepted,
        "verbatim": verbatim,
        "answer_tokens": answer,
        "refined_tokens": refined,
        "copied": copied,
        "ce": [rng.expovariate(20 if kept else 0.5) for kept in copied] if accepted else None,
    }


def _words(count: int, rng: random.Random) -> Iterator[str]:
    return (rng.choice(VOCABULARY) for _ in range(count))


if __name__ == "__main__":
    main()
