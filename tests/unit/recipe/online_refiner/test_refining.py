"""What happens to one finished rollout: both savings, the filter, and every way to fail."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from recipe.online_refiner.choices import Filter
from recipe.online_refiner.records import Refinement, Score
from recipe.online_refiner.refine.refining import Refining, StepClock
from refiner_worker.client import Outcome, RefinerReply, RefineTask
from refiner_worker.top_tokens import TopTokens

MESSAGES = [{"role": "user", "content": "sum"}]


class ScriptedClient:
    """Replies to every rollout with one refinement, and counts."""

    def __init__(self, reply: RefinerReply, top: TopTokens | None = None) -> None:
        self._reply = reply
        self._top = top
        self.tasks: list[RefineTask] = []
        self.scored: list[tuple[RefinerReply, int]] = []

    @property
    def calls(self) -> int:
        return len(self.tasks)

    async def refine(self, task: RefineTask) -> RefinerReply:
        self.tasks.append(task)
        return self._reply

    async def top_tokens(
        self, reply: RefinerReply, count: int, until_s: float | None
    ) -> TopTokens | None:
        self.scored.append((reply, count))
        return self._top


class Judge:
    """Gives every response one score, and counts."""

    def __init__(self, score: Score | Exception) -> None:
        self._score = score
        self.calls = 0

    async def __call__(self, token_ids: Sequence[int]) -> Score:
        self.calls += 1
        if isinstance(self._score, Exception):
            raise self._score
        return self._score


def run(
    client: ScriptedClient,
    judge: Judge,
    score: Score,
    rule: Filter = Filter.BETTER,
    perfect_reward: float | None = 1.0,
    top_tokens: int = 0,
) -> Refinement:
    scripted: Any = client
    refining = Refining(scripted, rule, perfect_reward, top_tokens=top_tokens)
    return asyncio.run(refining.refine(RefineTask(MESSAGES, [1, 2, 3]), score, 0, judge))


REFINED = RefinerReply(
    Outcome.REFINED, (1, 9, 3), generated_tokens=3, engine_calls=2, scored_tokens=1
)
VERBATIM = RefinerReply(Outcome.VERBATIM, (1, 2, 3), generated_tokens=3)


def test_a_better_refinement_is_accepted_with_its_diff() -> None:
    record = run(
        ScriptedClient(REFINED), Judge(Score(1.0, "accepted")), Score(-0.3, "wrong_answer")
    )
    assert (record.outcome, record.accepted) == ("refined", True)
    assert (record.reward, record.refined_reward) == (-0.3, 1.0)
    assert (record.verdict, record.refined_verdict) == ("wrong_answer", "accepted")
    assert (record.copied, record.divergence, record.edit_distance) == ((1, 0, 1), 1, 1)
    assert (record.generated_tokens, record.engine_calls, record.scored_tokens) == (3, 2, 1)
    assert record.finished_at_s >= record.judged_at_s


@pytest.mark.parametrize(("rule", "accepted"), [(Filter.BETTER, False), (Filter.NOT_WORSE, True)])
def test_an_equally_good_refinement_is_up_to_the_filter(rule: Filter, accepted: bool) -> None:
    record = run(ScriptedClient(REFINED), Judge(Score(-0.3)), Score(-0.3), rule)
    assert record.accepted is accepted


def test_a_perfect_rollout_is_not_refined() -> None:
    client, judge = ScriptedClient(REFINED), Judge(Score(1.0))
    record = run(client, judge, Score(1.0))
    assert (record.outcome, client.calls, judge.calls) == ("skipped_perfect", 0, 0)


def test_without_a_highest_reward_every_rollout_is_refined() -> None:
    client = ScriptedClient(REFINED)
    run(client, Judge(Score(7.0)), Score(5.0), perfect_reward=None)
    assert client.calls == 1


def test_a_verbatim_refinement_is_not_judged_again_and_has_the_same_reward() -> None:
    judge = Judge(Score(1.0))
    record = run(ScriptedClient(VERBATIM), judge, Score(-0.3, "wrong_answer"))
    assert (record.outcome, judge.calls, record.accepted) == ("verbatim", 0, False)
    assert (record.refined_reward, record.refined_verdict) == (-0.3, "wrong_answer")


def test_an_unjudged_rollout_is_not_refined() -> None:
    client = ScriptedClient(REFINED)
    record = run(client, Judge(Score(1.0)), Score(0.0, judged=False))
    assert (record.outcome, client.calls, record.accepted) == ("unjudged", 0, False)


@pytest.mark.parametrize("verdict", [Score(0.0, judged=False), RuntimeError("judge is gone")])
def test_a_refinement_that_cannot_be_judged_is_never_accepted(verdict: Score | Exception) -> None:
    record = run(ScriptedClient(REFINED), Judge(verdict), Score(-1.0), Filter.OFF)
    assert (record.outcome, record.accepted, record.refined_reward) == ("unjudged", False, None)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.failed])
def test_a_failed_refinement_leaves_the_rollout_unconstrained(outcome: Outcome) -> None:
    judge = Judge(Score(1.0))
    record = run(ScriptedClient(RefinerReply(outcome)), judge, Score(-1.0), Filter.OFF)
    assert (record.outcome, record.accepted, judge.calls) == (str(outcome), False, 0)
    assert (record.token_ids, record.edit_distance) == ((), 0)


def test_all_rollouts_of_a_step_share_its_end_and_the_next_step_has_its_own() -> None:
    async def ends() -> list[float]:
        clock = StepClock(60.0)
        first = [clock.until_s(3)]
        await asyncio.sleep(0.01)
        found = [*first, clock.until_s(3), clock.until_s(4), clock.until_s(3)]
        return [end for end in found if end is not None]

    first, same, second, late = asyncio.run(ends())
    assert first == same < second == late
    assert StepClock(None).until_s(3) is None


def test_the_first_step_has_an_end_of_its_own() -> None:
    async def end_s() -> float:
        end = StepClock(60.0).until_s(0)
        assert end is not None
        return end - asyncio.get_running_loop().time()

    assert asyncio.run(end_s()) == pytest.approx(60.0, abs=1.0)


@pytest.mark.parametrize(("rule", "accepted"), [(Filter.BETTER, False), (Filter.NOT_WORSE, True)])
def test_a_verbatim_refinement_is_as_good_as_its_rollout_to_the_filter(
    rule: Filter, accepted: bool
) -> None:
    record = run(ScriptedClient(VERBATIM), Judge(Score(1.0)), Score(-0.3), rule)
    assert record.accepted is accepted
    assert (record.copied, record.edit_distance) == ((1, 1, 1), 0)


def test_a_refinement_is_dropped_if_its_verdict_comes_after_the_steps_end() -> None:
    async def call() -> tuple[Refinement, list[RefineTask]]:
        async def never(token_ids: Sequence[int]) -> Score:
            await asyncio.Event().wait()
            raise AssertionError

        client = ScriptedClient(REFINED)
        refining = Refining(client, Filter.OFF, 1.0, step_deadline_s=0.05)  # type: ignore[arg-type]
        task = RefineTask(MESSAGES, [1, 2, 3], feedback="told")
        return await refining.refine(task, Score(-0.3), 1, never), client.tasks

    record, (task,) = asyncio.run(call())
    assert (record.outcome, record.accepted, record.token_ids) == ("step_deadline", False, ())
    assert (record.generated_tokens, record.refined_reward) == (3, None)
    assert task.feedback == "told" and task.until_s is not None


def test_a_refinement_survives_being_stored_in_a_row() -> None:
    record = run(ScriptedClient(REFINED), Judge(Score(1.0)), Score(-0.3))
    assert Refinement.from_row(record.to_row()) == record


TOP = TopTokens(np.ones((3, 2), np.int32), np.full((3, 2), -1.0, np.float32), 1, 3)


def test_the_refiners_distributions_are_asked_for_what_is_accepted_and_counted() -> None:
    client = ScriptedClient(REFINED, TOP)
    record = run(client, Judge(Score(1.0)), Score(-0.3), top_tokens=2)
    assert client.scored == [(REFINED, 2)]
    assert record.top_tokens == TOP
    assert (record.generated_tokens, record.engine_calls, record.scored_tokens) == (4, 3, 3)
    assert Refinement.from_row(record.to_row()) == record


@pytest.mark.parametrize(("top_tokens", "reward"), [(0, 1.0), (2, -1.0)])
def test_they_are_not_asked_for_otherwise(top_tokens: int, reward: float) -> None:
    client = ScriptedClient(REFINED, TOP)
    record = run(client, Judge(Score(reward)), Score(-0.3), top_tokens=top_tokens)
    assert (client.scored, record.top_tokens, record.engine_calls) == ([], None, 2)


def test_a_refinement_whose_distributions_cannot_be_had_is_still_accepted() -> None:
    record = run(ScriptedClient(REFINED), Judge(Score(1.0)), Score(-0.3), top_tokens=2)
    assert (record.accepted, record.top_tokens, record.engine_calls) == (True, None, 2)
