"""Faster ways to decode on real vLLM engines with the tiny model, against plain decoding."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.cpu import environment

REPO_ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = REPO_ROOT / "recipe" / "cpu" / "checkpoint"
REFINEMENTS, SAMPLES = 240, 300
TIE_NATS = 1e-4
"""Tokens closer than this may change places between a prefill and a decoding step (float32)."""


@pytest.fixture(scope="module")
def decoded() -> dict[str, Any]:
    """What `decode_on_engine.py` measured."""
    script = Path(__file__).with_name("decode_on_engine.py")
    command = [sys.executable, str(script), str(CHECKPOINT), str(REFINEMENTS), str(SAMPLES)]
    path = os.pathsep.join([str(REPO_ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        env=os.environ | environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


pytestmark = pytest.mark.vllm_kernels


def test_greedy_output_is_plain_decodings_token_for_token(decoded: dict[str, Any]) -> None:
    assert decoded["refinements"] == REFINEMENTS
    assert [gap for gap in decoded["gaps_nats"] if gap > TIE_NATS] == []


def test_copies_and_edits_are_both_among_them_and_cost_fewer_tokens(
    decoded: dict[str, Any],
) -> None:
    assert REFINEMENTS * 0.2 < decoded["verbatim"] < REFINEMENTS * 0.8
    assert decoded["verify_tokens"] < decoded["plain_tokens"] / 3
    assert decoded["most_calls"] <= 12


def test_our_proposer_changes_no_output_and_saves_passes(decoded: dict[str, Any]) -> None:
    """Within the near ties that verification may meet as well; see TIE_NATS."""
    assert decoded["copy_unequal"] <= REFINEMENTS * 0.01
    assert 0 < decoded["copy_passes"] < decoded["plain_tokens"] / 2


def test_an_engine_that_speculates_tells_the_likeliest_tokens_of_the_model(
    decoded: dict[str, Any],
) -> None:
    assert len(decoded["score_errors"]) > 24 * 10
    assert max(decoded["score_errors"]) < 1e-3


def test_answers_are_refined_block_after_block(decoded: dict[str, Any]) -> None:
    """The model was never taught to; what counts is that each block is asked for, and once."""
    finished = [one for one in decoded["by_blocks"] if one["outcome"] in ("refined", "verbatim")]
    assert finished
    assert all(one["calls"] == one["blocks"] > 1 for one in finished)
    assert all(1 < one["tokens"] <= 64 for one in finished)


def test_sampled_outputs_are_distributed_as_plain_decodings(decoded: dict[str, Any]) -> None:
    """A chi-square test of homogeneity; outputs seen fewer than 10 times in all count as one."""
    plain, verified = decoded["plain_samples"], decoded["verify_samples"]
    groups: dict[str, tuple[int, int]] = {}
    for output in plain.keys() | verified.keys():
        seen = plain.get(output, 0), verified.get(output, 0)
        name = output if sum(seen) >= 10 else "rare"
        before = groups.get(name, (0, 0))
        groups[name] = before[0] + seen[0], before[1] + seen[1]
    assert len(groups) > 1, "the prompt leaves the refiner no choice"
    # With equally many samples of both, the expectation of each cell is the mean of its group.
    statistic = sum((a - b) ** 2 / (a + b) for a, b in groups.values())
    assert statistic < chi_square_quantile(len(groups) - 1), groups


def chi_square_quantile(degrees: int) -> float:
    """The 99.95 % quantile, by Wilson and Hilferty's approximation."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.29 * spread**0.5) ** 3
