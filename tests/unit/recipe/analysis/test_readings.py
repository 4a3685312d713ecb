"""Both readings by a model of three tokens, and the episode that is drawn."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recipe.analysis.readings import EpisodeIds, both_readings, clearest, episode_ids

TABLE = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]])


def model(input_ids: torch.Tensor) -> Any:
    """The next token depends on the last one alone."""
    return SimpleNamespace(logits=TABLE.log()[input_ids])


def test_the_readings_differ_by_what_the_model_has_read() -> None:
    found = both_readings(model, EpisodeIds([2, 0], [0, 1, 2], [0, 2, 2, 1]))
    assert found.self_fed == pytest.approx([math.log(2), math.log(4), math.log(4)])
    assert found.teacher_forced == pytest.approx(
        [math.log(2), math.log(4), math.log(4 / 3), math.log(8)]
    )


def test_a_longer_rollout_is_asked_for_no_more_than_the_refinement_has() -> None:
    found = both_readings(model, EpisodeIds([0], [0, 1, 2], [1]))
    assert found.self_fed == found.teacher_forced == pytest.approx([math.log(4)])


class Letters:
    """A tokenizer whose tokens are letters; two of its ids are written alike."""

    def __len__(self) -> int:
        return 4

    def decode(self, ids: list[int]) -> str:
        return "abcc"[ids[0]]

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        return f"{messages}"

    def encode(self, text: str, **_: Any) -> list[int]:
        return ["abcc".index(letter) for letter in text]


def test_ids_come_back_from_the_logged_tokens_and_an_unclear_one_is_refused() -> None:
    record = {"answer_tokens": ["a", "b"], "refined_tokens": ["b"]}
    assert episode_ids(record, "ba", Letters()) == EpisodeIds([1, 0], [0, 1], [1])
    with pytest.raises(ValueError, match="'c'"):
        episode_ids(record | {"refined_tokens": ["c"]}, "ba", Letters())


def record(answer: str, refined: str, copied: list[int], accepted: bool = True) -> dict[str, Any]:
    return {
        "answer_tokens": list(answer),
        "refined_tokens": list(refined),
        "copied": copied,
        "accepted": accepted,
    }


def test_the_episode_drawn_has_copied_text_before_an_edit_and_shifted_after_it() -> None:
    replaced = record("abcdef", "abXdef", [1, 1, 0, 1, 1, 1])
    inserted = record("abcdef", "abXcdef", [1, 1, 0, 1, 1, 1, 1])
    deleted = record("abcdef", "abdef", [1, 1, 1, 1, 1])
    refused = record("abcdefgh", "abcXdefgh", [1, 1, 1, 0, 1, 1, 1, 1, 1], accepted=False)
    assert clearest([replaced, deleted, inserted, refused]) is inserted
