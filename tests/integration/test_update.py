"""Whole optimizer steps with the constraint's rows, by verl's own engines.

FSDP2 on the CPU (`update_cases.py`), on one rank and on two; and the Megatron engine on two, with
Megatron-Core stood in for (`megatron_cases.py`). Updates that only differ in how the
rows are cut into forward passes agree up to fp32 rounding, since the padding and the order of
summation change with the cut; `TOLERANCE` is relative to the length of the step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from recipe.cpu import environment

pytestmark = pytest.mark.timeout(300)

FSDP = Path(__file__).with_name("update_cases.py")
MEGATRON = Path(__file__).with_name("megatron_cases.py")
LIMIT_S = 240.0
TOLERANCE = 1e-4
ON_ONE_RANK = (
    *("start", "plain_sft", "plain_chord", "sft_alone", "chord_alone"),
    *("verl", "weightless", "verl_by_tokens", "weightless_by_tokens", "unconstrained"),
    *("mixed", "one_micro_batch", "three_a_micro_batch", "one_a_micro_batch", "packed"),
    *("sequence_mean", "chord", "two_mini_batches", "two_mini_batches_one_a_micro_batch"),
    *("two_mini_batches_as_on_two_ranks", "demonstrations"),
    *("plain_self_fed", "self_fed", "self_fed_one_a_micro_batch", "self_fed_packed"),
    *("self_fed_weightless", "self_fed_alone"),
    *("plain_distilled", "distilled", "distilled_one_a_micro_batch", "distilled_packed"),
    *("distilled_weightless", "distilled_alone"),
    *("measured", "measured_packed", "measured_one_a_micro_batch", "unmeasured"),
)
ON_TWO_RANKS = (
    *("mixed", "one_a_micro_batch", "sequence_mean", "chord", "two_mini_batches"),
    *("self_fed", "self_fed_packed", "distilled", "distilled_packed", "sliced"),
    "demonstrations_on_two_ranks",
)

MEGATRON_LAYOUTS = tuple(
    f"{what}_{layout}_{split}"
    for what in ("labels", "targets")
    for layout in ("thd", "bshd")
    for split in ("tensor", "context")
)
MEGATRON_CUTS = ("all_a_micro_batch", "three_a_micro_batch", "by_tokens", "per_token")

Outcomes = dict[str, tuple[torch.Tensor, dict[str, Any]]]


def launcher(ranks: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]


@contextmanager
def started(
    script: Path, out: Path, ranks: int, cases: Sequence[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The script under way; whatever is left of it afterwards is killed."""
    process = subprocess.Popen(
        [sys.executable, *launcher(ranks), str(script), str(out), *cases],
        env=os.environ | environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def outcomes(process: subprocess.Popen[bytes], out: Path) -> Outcomes:
    """Parameters and metrics after each case's update, once the script is through."""
    log, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, log.decode(errors="replace")[-6000:]
    loaded: Outcomes = torch.load(out, weights_only=False)
    return loaded


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcomes, Outcomes]:
    """The outcomes on one rank and on two, which are computed at the same time."""
    folder = tmp_path_factory.mktemp("fsdp")
    one, two = folder / "one.pt", folder / "two.pt"
    with started(FSDP, one, 1, ON_ONE_RANK) as first, started(FSDP, two, 2, ON_TWO_RANKS) as second:
        return outcomes(first, one), outcomes(second, two)


@pytest.fixture(scope="module")
def megatron(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    out = tmp_path_factory.mktemp("megatron") / "two.pt"
    with started(MEGATRON, out, 2, ["plain", *MEGATRON_CUTS, *MEGATRON_LAYOUTS]) as process:
        return outcomes(process, out)


@pytest.fixture
def one_rank(both: tuple[Outcomes, Outcomes]) -> Outcomes:
    return both[0]


@pytest.fixture
def two_ranks(both: tuple[Outcomes, Outcomes]) -> Outcomes:
    return both[1]


def test_rows_without_weight_leave_the_parameters_bit_identical(one_rank: Outcomes) -> None:
    """Two mini-batches, two epochs and AdamW, in micro-batches that hold one kind of row each."""
    without, beside = one_rank["verl"], one_rank["weightless"]
    assert not torch.equal(without[0], one_rank["start"][0])
    assert torch.equal(beside[0], without[0])
    assert beside[1]["loss"] == without[1]["loss"]
    assert beside[1]["grad_norm"] == without[1]["grad_norm"]


def assert_same_step(one_rank: Outcomes, got: torch.Tensor, expected: torch.Tensor) -> None:
    step = expected - one_rank["start"][0]
    assert step.norm() > 0.02
    assert (got - expected).norm() < TOLERANCE * step.norm()


def test_rows_without_weight_change_nothing_where_micro_batches_mix(one_rank: Outcomes) -> None:
    """The policy's rows are padded and summed differently, so up to rounding."""
    assert_same_step(one_rank, one_rank["weightless_by_tokens"][0], one_rank["verl_by_tokens"][0])


@pytest.mark.parametrize(
    "case", ["one_micro_batch", "three_a_micro_batch", "one_a_micro_batch", "packed"]
)
def test_how_rows_are_cut_into_forward_passes_does_not_matter(
    one_rank: Outcomes, case: str
) -> None:
    assert_same_step(one_rank, one_rank[case][0], one_rank["mixed"][0])


def test_neither_does_it_with_two_mini_batches(one_rank: Outcomes) -> None:
    by_rows, by_tokens = "two_mini_batches_one_a_micro_batch", "two_mini_batches"
    assert_same_step(one_rank, one_rank[by_rows][0], one_rank[by_tokens][0])


def test_the_rows_do_move_the_parameters(one_rank: Outcomes) -> None:
    policy_alone, mixed = one_rank["verl_by_tokens"][0], one_rank["mixed"][0]
    assert (mixed - policy_alone).norm() > 0.01


@pytest.mark.parametrize(
    "case",
    [
        *("mixed", "one_a_micro_batch", "sequence_mean", "chord", "self_fed", "self_fed_packed"),
        *("distilled", "distilled_packed"),
    ],
)
def test_two_ranks_make_the_step_of_one(one_rank: Outcomes, two_ranks: Outcomes, case: str) -> None:
    assert_same_step(one_rank, two_ranks[case][0], one_rank[case][0])


def test_two_ranks_make_the_steps_of_one_that_sees_the_same_rows_in_each_mini_batch(
    one_rank: Outcomes, two_ranks: Outcomes
) -> None:
    expected = one_rank["two_mini_batches_as_on_two_ranks"]
    assert_same_step(one_rank, two_ranks["two_mini_batches"][0], expected[0])
    got = two_ranks["two_mini_batches"][1]
    assert got["sft_loss"] == pytest.approx(expected[1]["sft_loss"], rel=1e-5)


def test_chords_mix_holds_in_each_mini_batch_on_any_number_of_ranks(
    one_rank: Outcomes, two_ranks: Outcomes
) -> None:
    """Three demonstrations: the first and the third in the first mini-batch, the second alone."""
    one, two = one_rank["demonstrations"], two_ranks["demonstrations_on_two_ranks"]
    plain = [torch.tensor(values).mean() for values in one_rank["plain_sft"][1]["refine_ce"]]
    # At the weights of the start; the second mini-batch sees them after one step.
    first, second = one[1]["sft_loss"]
    assert first == pytest.approx(0.75 * (plain[0] + plain[2]).item() / 2, rel=1e-4)
    seen = {number: torch.tensor(values).mean().item() for number, values in one[1]["refine_ce"]}
    assert second == pytest.approx(0.75 * seen[2], rel=1e-4)
    assert two[1]["sft_loss"] == pytest.approx(one[1]["sft_loss"], rel=1e-4)
    assert_same_step(one_rank, two[0], one[0])


def test_arms_without_a_constraint_make_verls_step(one_rank: Outcomes) -> None:
    ours, verls = one_rank["unconstrained"], one_rank["verl_by_tokens"]
    assert torch.equal(ours[0], verls[0])
    assert ours[1]["loss"] == verls[1]["loss"]


@pytest.mark.parametrize("name", ["actor/pg_clipfrac", "actor/ppo_kl"])
@pytest.mark.parametrize(
    ("ranks", "case"),
    [
        ("one_rank", "mixed"),
        ("one_rank", "three_a_micro_batch"),
        ("one_rank", "one_a_micro_batch"),
        ("one_rank", "self_fed"),
        ("two_ranks", "mixed"),
        ("two_ranks", "one_a_micro_batch"),
    ],
)
def test_policy_metrics_compare_between_arms(
    request: pytest.FixtureRequest, one_rank: Outcomes, ranks: str, case: str, name: str
) -> None:
    """Of the first mini-batch, which sees the same policy, whatever rows are beside its own."""
    (expected,) = one_rank["unconstrained"][1][name]
    assert expected != 0
    assert request.getfixturevalue(ranks)[case][1][name] == [pytest.approx(expected, rel=1e-3)]


@pytest.mark.parametrize("case", ["self_fed_one_a_micro_batch", "self_fed_packed"])
def test_nor_does_it_with_labels_on_the_policys_rows(one_rank: Outcomes, case: str) -> None:
    assert_same_step(one_rank, one_rank[case][0], one_rank["self_fed"][0])


@pytest.mark.parametrize("case", ["distilled_one_a_micro_batch", "distilled_packed"])
def test_nor_does_it_with_targets_on_the_added_rows(one_rank: Outcomes, case: str) -> None:
    assert_same_step(one_rank, one_rank[case][0], one_rank["distilled"][0])


@pytest.mark.parametrize("case", ["self_fed_weightless", "distilled_weightless"])
def test_labels_and_targets_without_weight_leave_the_parameters_bit_identical(
    one_rank: Outcomes, case: str
) -> None:
    without, beside = one_rank["verl"], one_rank[case]
    assert torch.equal(beside[0], without[0])
    assert beside[1]["loss"] == without[1]["loss"]
    assert beside[1]["grad_norm"] == without[1]["grad_norm"]


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [("measured", 1e-6), ("measured_packed", 1e-4), ("measured_one_a_micro_batch", 1e-4)],
)
def test_a_pass_measures_every_label_in_the_rows_own_state(
    one_rank: Outcomes, case: str, tolerance: float
) -> None:
    values = one_rank["plain_self_fed"][1]["refine_ce"]
    plain = torch.tensor([value for row in values for value in row])
    assert len(plain) > 50
    got = one_rank[case][0]
    assert torch.allclose(got, plain, rtol=1e-4, atol=1e-5)
    assert torch.allclose(got, one_rank["measured"][0], rtol=tolerance, atol=tolerance)


def test_measuring_leaves_the_log_probs_bit_identical(one_rank: Outcomes) -> None:
    measured, alone = one_rank["measured"][1], one_rank["unmeasured"][1]
    assert torch.equal(measured["log_probs"], alone["log_probs"])


def test_a_pass_sliced_by_ulysses_measures_what_a_whole_one_does(two_ranks: Outcomes) -> None:
    sliced, whole = two_ranks["sliced"][0], two_ranks["sliced"][1]["whole"]
    assert whole.count_nonzero() > 20
    assert torch.equal(sliced, whole)


@pytest.mark.parametrize(
    ("case", "plain"),
    [
        ("sft_alone", "plain_sft"),
        ("chord_alone", "plain_chord"),
        ("self_fed_alone", "plain_self_fed"),
        ("distilled_alone", "plain_distilled"),
    ],
)
def test_without_advantages_the_step_is_a_plain_sft_step(
    one_rank: Outcomes, case: str, plain: str
) -> None:
    assert_same_step(one_rank, one_rank[case][0], one_rank[plain][0])


@pytest.mark.parametrize("ranks", ["one_rank", "two_ranks"])
def test_each_rows_cross_entropy_is_reported_once(
    request: pytest.FixtureRequest, one_rank: Outcomes, ranks: str
) -> None:
    seen = request.getfixturevalue(ranks)["mixed"][1]["refine_ce"]
    plain = one_rank["plain_sft"][1]["refine_ce"]
    assert_reports(seen, dict(enumerate(plain, start=1)))
    seen = request.getfixturevalue(ranks)["self_fed"][1]["refine_ce"]
    plain = one_rank["plain_self_fed"][1]["refine_ce"]
    assert_reports(seen, dict(enumerate(plain, start=1)))


@pytest.mark.parametrize("ranks", ["one_rank", "two_ranks"])
def test_each_rows_divergence_is_reported_once_and_of_none_without_targets(
    request: pytest.FixtureRequest, one_rank: Outcomes, ranks: str
) -> None:
    seen = request.getfixturevalue(ranks)["distilled"][1]
    plain = one_rank["plain_distilled"][1]["refine_kl"]
    assert_reports(seen["refine_kl"], dict(enumerate(plain, start=1)))
    assert_reports(
        seen["refine_ce"], dict(enumerate(one_rank["plain_sft"][1]["refine_ce"], start=1))
    )


def assert_reports(seen: list[tuple[int, list[float]]], plain: dict[int, list[float]]) -> None:
    assert sorted(number for number, _ in seen) == sorted(plain)
    for number, values in seen:
        assert values == pytest.approx(plain[number], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("case", MEGATRON_CUTS)
def test_verls_megatron_engine_makes_the_plain_step_and_reports_each_row_once(
    megatron: Outcomes, case: str
) -> None:
    """However the rows are cut, and in the regime in which Megatron divides by tokens."""
    expected, plain = megatron["plain"]
    got, metrics = megatron[case]
    assert torch.allclose(got, expected, atol=1e-6)
    assert metrics["sft_loss"] == [pytest.approx(plain["sft_loss"], rel=1e-5)]
    assert_reports(metrics["refine_ce"], dict(plain["refine_ce"]))


@pytest.mark.parametrize("case", MEGATRON_LAYOUTS)
def test_labels_and_targets_fit_megatrons_layout_of_the_logits(
    megatron: Outcomes, case: str
) -> None:
    found, seen = megatron[case]
    assert seen["asked"] > 5
    assert torch.allclose(found, seen["expected"], atol=1e-6)
