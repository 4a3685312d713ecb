"""When the phases of a step certainly were, from times and durations."""

import pytest

from recipe.acceptance.timeline import (
    MemorySeen,
    Phases,
    Rollout,
    Sample,
    Span,
    memory_seen,
    phases,
    refines,
)

TIMING = {
    "gen": 10.0,
    "old_log_prob": 2.0,
    "ref": 1.0,
    "adv": 0.5,
    "update_actor": 6.0,
    "update_weights": 1.5,
    "step": 22.0,  # one second more than its parts: sleeping and waking
}
ROLLOUTS = [Rollout(4, 100.0, 101.0), Rollout(4, 103.0, 107.0), Rollout(5, 130.0, 131.0)]


def test_a_phase_counts_while_it_is_certain_whoever_had_the_unknown_second() -> None:
    found = phases(4, ROLLOUTS, TIMING, notice_s=0.5)
    assert found == Phases(
        rollouts=Span(100.0, 107.0),
        asleep=Span(107.0 + 1.5, 107.0 + 9.5),
        update=Span(107.0 + 1.5 + 3.5, 107.0 + 9.5),
    )


def test_a_phase_shorter_than_what_is_unknown_is_empty() -> None:
    found = phases(4, ROLLOUTS, {**TIMING, "step": 40.0}, notice_s=2.0)
    assert found is not None
    assert found.update.start_s > found.update.end_s
    assert found.update.within([Sample(at, 1) for at in range(100, 140)]) == []


def test_a_step_without_rollouts_has_no_phases() -> None:
    assert phases(6, ROLLOUTS, TIMING, notice_s=0.0) is None


def test_memory_is_the_most_awake_and_updating_and_the_least_asleep() -> None:
    first = Phases(Span(0, 10), Span(12, 20), Span(15, 20))
    second = Phases(Span(30, 40), Span(42, 50), Span(45, 50))
    used = {5: 60, 11: 99, 13: 4, 16: 20, 25: 98, 35: 61, 43: 5, 46: 30}
    samples = [Sample(at, size) for at, size in used.items()]
    assert memory_seen([first, second], samples) == MemorySeen(61, 4, 30)
    assert memory_seen([first], [Sample(11, 9)]) == MemorySeen(None, None, None)


@pytest.mark.parametrize(("steps", "refined"), [(4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_steps_without_refinement_stand_between_others(steps: int, refined: list[int]) -> None:
    assert [step for step in range(1, steps + 1) if refines(step)] == refined
