"""Small steps written by hand, on which a constraint is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts
from recipe.online_refiner.method.constraint import Step
from recipe.online_refiner.records import Prompt, Refinement, Rollout
from refiner_worker.chat import Chat
from refiner_worker.top_tokens import TopTokens

TOTAL_STEPS = 10


def small_step() -> Step:
    """Two groups of two: an improvement, a verbatim refinement, a perfect rollout, an unjudged."""
    better = _refinement("refined", -0.3, 1.0, ((5, 1), (8, 0), (7, 1)))
    better = replace(better, top_tokens=_top_tokens())
    same = _refinement("verbatim", -0.3, -0.3, ((5, 1), (6, 1)))
    perfect = _refinement("skipped_perfect", 1.0, None)
    unjudged = _refinement("unjudged", 0.0, None)
    rollouts = [
        _rollout("a_0_0", (5, 6, 7, 2), -0.3, better),
        _rollout("a_1_0", (5, 6), -0.3, same),
        _rollout("b_0_0", (6, 6, 2), 1.0, perfect),
        replace(_rollout("b_1_0", (7,), 0.0, unjudged), judged=False, response_mask=(0,)),
    ]
    return _of(rollouts)


def _top_tokens() -> TopTokens:
    """The refiner's distributions over the improvement, two tokens each."""
    ids = np.array([[5, 6], [8, 5], [7, 2]], dtype=np.int32)
    return TopTokens(ids, np.full((3, 2), np.log(0.25), dtype=np.float32), 0, 3)


def without_refinements() -> Step:
    return _of([replace(one, refinement=None) for one in small_step().rollouts])


def of_one_token() -> Step:
    return _of([_rollout("c_0_0", (2,), -1.0, _refinement("refined", -1.0, 1.0, ((5, 0),)))])


def _of(rollouts: Sequence[Rollout]) -> Step:
    words = {word: number for number, word in enumerate(["[UNK]", "[PAD]", "[EOS]", "x"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="[UNK]")),
        eos_token="[EOS]",
        unk_token="[UNK]",
    )
    found = [one.refinement for one in rollouts if one.refinement is not None]
    return Step(
        number=3,
        total_steps=TOTAL_STEPS,
        rollouts=rollouts,
        accepted=accepted_rollouts(rollouts, Tokens.ALL, Conditioning.TEACHER_FORCING),
        mini_batches=2,
        rollouts_a_mini_batch=2,
        trains_actor=True,
        chat=Chat.of(tokenizer),
        max_response_tokens=64,
        improvement_ratio=sum(one.improved for one in found) / len(found) if found else None,
        dropped=(Prompt("d", (3, 4), "x = 2"),),
    )


def _rollout(
    key: str, response_ids: tuple[int, ...], reward: float, refinement: Refinement
) -> Rollout:
    return Rollout(
        key=key,
        uid=key.partition("_")[0],
        problem_id=key,
        prompt_ids=(3, 4),
        response_ids=response_ids,
        response_mask=(1,) * len(response_ids),
        reward=reward,
        judged=True,
        reference="x = 1",
        refinement=refinement,
    )


def _refinement(
    outcome: str,
    reward: float,
    refined_reward: float | None,
    tokens: Sequence[tuple[int, int]] = (),
) -> Refinement:
    """A refinement of these tokens, each with whether it is copied."""
    return Refinement(
        outcome=outcome,
        reward=reward,
        judged_at_s=0.0,
        finished_at_s=1.0,
        refined_reward=refined_reward,
        accepted=refined_reward is not None and refined_reward > reward,
        token_ids=tuple(token for token, _ in tokens),
        copied=tuple(is_copied for _, is_copied in tokens),
        sources=tuple((index, index + 1) for index in range(len(tokens))),
    )
