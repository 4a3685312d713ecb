"""Which line of which file a rollout becomes, and the numbers per token on it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transfer_queue as tq
from omegaconf import DictConfig
from steps import refinement, rollout
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from transformers import AutoTokenizer

from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.online_refiner.choices import Conditioning, Tokens
from recipe.online_refiner.method.accepted import accepted_rollouts, with_cross_entropy
from recipe.online_refiner.method.self_fed import SelfFed
from recipe.online_refiner.preflight.log_rules import GIB, LogSize, log_size, size_warnings
from recipe.online_refiner.queue.rollouts import token_columns
from recipe.online_refiner.records import SKIPPED_PERFECT, Refinement
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.run.episode_log import EpisodeLog, Measured, in_share

TOKENIZER = AutoTokenizer.from_pretrained(ensure_checkpoint())
TEACHER = Conditioning.TEACHER_FORCING


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text))


@pytest.fixture
def log(tmp_path: Path) -> EpisodeLog:
    return EpisodeLog(tmp_path, TOKENIZER)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def perfect(**changes: Any) -> Refinement:
    """What is known of a rollout that was not refined."""
    fields: dict[str, Any] = {"outcome": SKIPPED_PERFECT, "reward": 1.0}
    return Refinement(**fields | {"judged_at_s": 0.0, "finished_at_s": 0.0} | changes)


def test_every_rollout_is_in_one_of_the_two_files(log: EpisodeLog, tmp_path: Path) -> None:
    edited = rollout("g_0", ids("x = 1"), refinement(ids("x = 2"), [1] * len(ids("x = 2"))))
    found = [
        edited,
        rollout("g_1", ids("y"), perfect()),
        rollout("h_0", ids("z"), perfect(outcome="deadline")),
        replace(rollout("h_1", ids("z")), verdict="wrong_answer"),
        replace(rollout("h_2", ids("z")), judged=False),
    ]
    log.append(3, found, Measured(TEACHER))
    (episode,) = lines(tmp_path, "episodes.jsonl")
    assert (episode["step"], episode["uid"], episode["answer"]) == (3, "g", "x = 1")
    assert (episode["refined"], episode["accepted"], episode["ce"]) == ("x = 2", True, None)
    others = lines(tmp_path, "rollouts.jsonl")
    assert [one["outcome"] for one in others] == [
        "skipped_perfect", "deadline", "not_refined", "unjudged"
    ]  # fmt: skip
    assert others[2]["verdict"] == "wrong_answer"
    assert set(others[0]) == {
        "step", "uid", "problem_id", "prompt", "answer", "reward", "verdict", "outcome",
        "answer_tokens",
    }  # fmt: skip


def test_tokens_are_those_of_the_text_however_often_they_come(
    log: EpisodeLog, tmp_path: Path
) -> None:
    text = "for x in a: é\u2028 x"
    for step in (1, 2):
        log.append(step, [rollout("g_0", ids(text))], Measured(TEACHER))
    first, second = lines(tmp_path, "rollouts.jsonl")
    assert first["answer_tokens"] == [TOKENIZER.decode([one]) for one in ids(text)]
    assert first["answer"] == text and second["answer_tokens"] == first["answer_tokens"]


def test_columns_are_on_the_line_of_their_rollout(log: EpisodeLog, tmp_path: Path) -> None:
    tokens = ids("ab")
    found = [rollout("g_0", tokens), rollout("g_1", tokens, refinement(tokens, [1] * len(tokens)))]
    columns: dict[str, Any] = {"g_0": {"advantage": -1.0}, "g_1": {"entropy": [0.5, 0.25]}}
    log.append(1, found, Measured(TEACHER, columns=columns))
    assert lines(tmp_path, "rollouts.jsonl")[0]["advantage"] == -1.0
    assert lines(tmp_path, "episodes.jsonl")[0]["entropy"] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("reading", "asked", "ce"),
    [
        (TEACHER, None, [0.5, 0.25, 0.125]),
        # a has two tokens, so the third of a' has no state to be asked in.
        (Conditioning.SELF_FEEDING, [1, 1, 0], [0.5, 0.25, 0.0]),
    ],
)
def test_the_cross_entropy_is_logged_with_its_reading(
    log: EpisodeLog,
    tmp_path: Path,
    reading: Conditioning,
    asked: list[int] | None,
    ce: list[float],
) -> None:
    one = rollout("g_0", [5, 6], refinement([5, 7, 8], [1, 0, 0]))
    accepted = accepted_rollouts([one], Tokens.ALL, reading)
    (measured,) = with_cross_entropy(accepted, [torch.tensor(ce)])
    log.append(1, [one], Measured(reading, {"g_0": measured}))
    (episode,) = lines(tmp_path, "episodes.jsonl")
    assert (episode["ce"], episode["ce_asked"]) == (ce, asked)
    assert episode["ce_reading"] == str(reading)


def test_the_cross_entropy_of_another_target_is_not_that_of_the_refinement(
    log: EpisodeLog, tmp_path: Path
) -> None:
    own, others = refinement([5, 7, 8], [1, 0, 0]), refinement([5, 9, 9], [1, 0, 0])
    one = rollout("g_0", [5, 6], own)
    (accepted,) = accepted_rollouts([one], Tokens.ALL, TEACHER)
    values = [torch.tensor([0.5, 0.25, 0.125])]
    (measured,) = with_cross_entropy([replace(accepted, refinement=others)], values)
    log.append(1, [one], Measured(TEACHER, {"g_0": measured}))
    (episode,) = lines(tmp_path, "episodes.jsonl")
    assert episode["ce"] is None
    assert len(episode["refined_tokens"]) == 3


def test_a_value_that_is_not_finite_is_none_in_the_log(log: EpisodeLog, tmp_path: Path) -> None:
    one = rollout("g_0", [5, 6], refinement([5, 7, 8], [1, 0, 0]))
    accepted = accepted_rollouts([one], Tokens.EDITED, TEACHER)
    (measured,) = with_cross_entropy(accepted, [torch.tensor([torch.inf, 0.5, 0.25])])
    watched = SelfFed([one])
    watched.measured([torch.tensor([torch.nan, 2.12345678])])
    log.append(1, [one], Measured(TEACHER, {"g_0": measured}, watched.columns))
    (text,) = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert "NaN" not in text and "Infinity" not in text
    episode = json.loads(text)
    assert episode["ce"] == [None, 0.5, 0.25]
    assert episode["cross_entropy_self_fed"] == [None, 2.123457, None]


def test_a_share_takes_whole_problems_the_same_in_every_run_and_about_so_many(
    tmp_path: Path,
) -> None:
    found = [rollout(f"p{number}_{sample}", [5]) for number in range(400) for sample in (0, 1)]
    found = [replace(one, problem_id=one.uid) for one in found]
    names = [
        {one.problem_id for one in EpisodeLog(tmp_path, TOKENIZER, share).wanted(found)}
        for share in (0.0, 0.25, 0.5, 1.0)
    ]
    assert [len(some) for some in names] == [0, pytest.approx(100, abs=30),
                                             pytest.approx(200, abs=30), 400]  # fmt: skip
    assert names[1] < names[2]
    wanted = EpisodeLog(tmp_path, TOKENIZER, 0.25).wanted(found)
    assert len(wanted) == 2 * len(names[1])


def test_a_share_of_problems_without_a_name_takes_whole_groups() -> None:
    groups = [replace(rollout(f"{number}_0", [5]), problem_id="") for number in range(50)]
    log = EpisodeLog(Path(), TOKENIZER, 0.5)
    assert 0 < len(log.wanted(groups)) < 50
    assert all(in_share(one.uid, 0.5) for one in log.wanted(groups))


Put = Callable[..., None]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """Rows in memory behind verl's queue, which returns only fields that all rows have."""
    rows: dict[str, dict[str, torch.Tensor]] = {}

    def get(keys: list[str], partition_id: str, select_fields: Sequence[str]) -> TensorDict:
        names = [name for name in select_fields if all(name in rows[key] for key in keys)]
        fields = {
            name: torch.nested.as_nested_tensor(
                [rows[key][name] for key in keys], layout=torch.jagged
            )
            for name in names
        }
        return TensorDict(fields, batch_size=len(keys))

    monkeypatch.setattr(tq, "kv_batch_get", get)
    return rows


def test_advantages_and_entropies_are_read_per_token_and_short(
    stored: dict[str, dict[str, torch.Tensor]],
) -> None:
    stored["a"] = {
        "advantages": torch.tensor([0.7071067, 0.7071067]),
        "entropy": torch.tensor([0.123456, 0.0]),
    }
    stored["b"] = {"advantages": torch.tensor([0.5, -0.0004]), "entropy": torch.tensor([1.0, 2.0])}
    stored["c"] = {"advantages": torch.tensor([2.0]), "entropy": torch.tensor([3.0])}
    batch = KVBatchMeta(keys=["a", "b", "c"], tags=[{}] * 3, partition_id="train")
    assert token_columns(batch, ["b", "a"]) == {
        "b": {"advantage": [0.5, -0.0004], "entropy": [1.0, 2.0]},
        "a": {"advantage": 0.707107, "entropy": [0.1235, 0.0]},
    }
    assert token_columns(batch, ["c"]) == {"c": {"advantage": [2.0], "entropy": [3.0]}}
    assert token_columns(batch, []) == {}


def test_a_column_that_verl_has_not_made_is_absent(
    stored: dict[str, dict[str, torch.Tensor]],
) -> None:
    stored["a"] = {"advantages": torch.tensor([1.0, 1.0])}
    batch = KVBatchMeta(keys=["a"], tags=[{}], partition_id="train")
    assert token_columns(batch, ["a"]) == {"a": {"advantage": 1.0}}


def test_watched_self_fed_each_token_stands_in_the_state_of_the_rollout_at_its_index() -> None:
    found = [
        rollout("g_0", [5, 6], refinement([5, 7, 8], [1, 0, 0])),
        rollout("g_1", [5, 6], refinement([5, 6], [1, 1], refined=-0.3)),
        rollout("g_2", [5, 6, 9], refinement([4], [0])),
    ]
    watched = SelfFed(found)
    assert [one.key for one in watched.labels] == ["g_0", "g_2"]
    assert [one.token_ids.tolist() for one in watched.labels] == [[5, 7], [4, -1, -1]]
    assert watched.columns == {}
    watched.measured([torch.tensor([0.25, 2.0]), torch.tensor([1.0])])
    assert watched.columns == {
        "g_0": {"cross_entropy_self_fed": [0.25, 2.0, None]},
        "g_2": {"cross_entropy_self_fed": [1.0]},
    }


def test_the_size_of_the_log_is_that_of_full_responses_and_of_the_share(
    composed: Callable[..., DictConfig],
) -> None:
    changes = ("data.train_batch_size=8", "actor_rollout_ref.rollout.n=4", "run.log_share=0.5",
               "data.max_prompt_length=100", "data.max_response_length=20",
               "trainer.total_training_steps=10")  # fmt: skip
    size = log_size(resolve(composed(*changes, "constraint.kind=none", "refiner.observe=false")))
    assert (size.step, size.run) == (16 * (100 * 5 + 20 * 40), 160 * (100 * 5 + 20 * 40))
    refined = log_size(resolve(composed(*changes)))
    assert refined.step == 16 * (100 * 5 + 20 * 100)
    unbounded = log_size(resolve(composed(*changes, "trainer.total_training_steps=null")))
    assert unbounded.run is None


def test_a_log_that_could_fill_the_disk_is_warned_of_with_a_share_that_fits() -> None:
    assert list(size_warnings(LogSize(GIB, 8 * GIB, 9 * GIB), 1.0)) == []
    assert list(size_warnings(LogSize(GIB, None, GIB), 1.0)) == []
    (warning,) = size_warnings(LogSize(GIB, 10 * GIB, 4 * GIB), 0.5)
    assert "run.log_share=0.5" in warning and "10.0 GiB" in warning
    assert "Fix: run.log_share=0.1," in warning
