"""Time and bytes of one step's log of rollouts, with every number per token.

    eval "$(python -m recipe.cpu)" && python scripts/bench/rollout_log.py
        [--rollouts 512] [--tokens 1024] [--refined 0.5] [--tokenizer FOLDER]

Programs of micro-APPS, repeated to the length, as rollouts; the refined ones are all accepted, with
the cross entropy in both readings. Reading the numbers from verl's queue is not in it; a run's own
`timing_s/episode_log` is all of it.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.records import Refinement, Rollout
from recipe.online_refiner.run.episode_log import EpisodeLog, Measured

REPO_ROOT = Path(__file__).resolve().parents[2]
PROMPT_TOKENS = 300


def main() -> None:
    """Generate, write three steps, print the last."""
    options = _parse_options()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    source = tokenizer.encode((REPO_ROOT / "recipe" / "cpu" / "micro_apps.py").read_text())
    rng = random.Random(0)
    refined = round(options.rollouts * options.refined)
    rollouts = [
        make_rollout(str(number), source, options.tokens, number < refined, rng)
        for number in range(options.rollouts)
    ]
    columns = {one.key: make_columns(one, rng) for one in rollouts}
    accepted = accepted_rollouts(rollouts, Tokens.ALL, Conditioning.TEACHER_FORCING)
    values = [torch.rand(len(one.refinement.token_ids)) for one in accepted]
    measured = {one.key: one for one in with_cross_entropy(accepted, values)}
    with tempfile.TemporaryDirectory() as folder:
        log = EpisodeLog(Path(folder), tokenizer)
        print(f"{'file':18}{'lines':>8}{'MB':>8}{'bytes a token':>15}")
        for step in range(3):
            before = sizes(Path(folder))
            started_s = time.process_time()
            log.append(step, rollouts, Measured(Conditioning.TEACHER_FORCING, measured, columns))
            took_s = time.process_time() - started_s
        after = sizes(Path(folder))
    counts = {"episodes.jsonl": refined, "rollouts.jsonl": options.rollouts - refined}
    for name, lines in counts.items():
        size = after.get(name, 0) - before.get(name, 0)
        tokens = max(1, lines * options.tokens * (1 + (name == "episodes.jsonl")))
        print(f"{name:18}{lines:8}{size / 1e6:8.1f}{size / tokens:15.1f}")
    print(f"{took_s:.2f} s of CPU time for the third step")


def make_rollout(
    key: str, source: Sequence[int], tokens: int, is_refined: bool, rng: random.Random
) -> Rollout:
    """A rollout of so many tokens from anywhere in the source."""
    start = rng.randrange(len(source))
    ids = tuple(source[(start + index) % len(source)] for index in range(tokens))
    rollout = Rollout(
        key=key,
        uid=key,
        problem_id=key,
        prompt_ids=ids[:PROMPT_TOKENS],
        response_ids=ids,
        response_mask=(1,) * tokens,
        reward=-0.3,
        judged=True,
        reference="",
        refinement=None,
    )
    return replace(rollout, refinement=make_refinement(ids)) if is_refined else rollout


def make_refinement(ids: tuple[int, ...]) -> Refinement:
    """An accepted refinement that copies."""
    return Refinement(
        outcome="refined",
        reward=-0.3,
        judged_at_s=0.0,
        finished_at_s=0.0,
        refined_reward=1.0,
        accepted=True,
        token_ids=ids,
        copied=(1,) * len(ids),
        sources=tuple((index, index + 1) for index in range(len(ids))),
    )


def make_columns(rollout: Rollout, rng: random.Random) -> dict[str, Any]:
    """Numbers as a run rounds them, an advantage for each token as under GAE."""
    count = len(rollout.response_ids)
    columns: dict[str, Any] = {
        "advantage": [round(rng.gauss(0, 1), 6) for _ in range(count)],
        "entropy": [round(rng.random(), 4) for _ in range(count)],
    }
    if rollout.refinement is not None:
        columns["cross_entropy_self_fed"] = [round(rng.random(), 6) for _ in range(count)]
    return columns


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files in a folder."""
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def _parse_options() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=512, help="a step")
    parser.add_argument("--tokens", type=int, default=1024, help="of each response")
    parser.add_argument("--refined", type=float, default=0.5, help="share that is refined")
    parser.add_argument("--tokenizer", default=str(ensure_checkpoint()), help="folder or hub id")
    return parser.parse_args()


if __name__ == "__main__":
    main()
