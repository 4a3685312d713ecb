"""What passes, warns and fails of measured decoding methods."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from recipe.acceptance.decoding import (
    Decoded,
    DecodingSeen,
    Slept,
    copy_check,
    decoding_checks,
    parting,
    sleep_check,
)
from recipe.acceptance.machine import GIB
from recipe.acceptance.results import Status

PLAIN = Decoded("plain", 8, 64, 2000, 4.0, 2000, 0, 0, ())
NGRAM = replace(PLAIN, decoding="ngram", wall_s=2.0, passes=700, drafted=1000, accepted=600)
COPY = replace(NGRAM, decoding="copy", wall_s=1.0, passes=400)
SLEPT = Slept(20 * GIB, 4 * GIB, 20 * GIB, 1.0, 0.2, 32, 0)


def seen(*rows: Decoded, slept: Slept | None = None) -> DecodingSeen:
    return DecodingSeen("bfloat16", True, rows or (PLAIN, NGRAM, COPY), slept)


def test_what_was_measured_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = seen(PLAIN, NGRAM, replace(COPY, gaps_nats=(0.1, 0.02)), slept=SLEPT)
    (tmp_path / "seen.json").write_text(json.dumps(asdict(one)))
    assert DecodingSeen.read(tmp_path / "seen.json") == one


def test_equal_outputs_at_a_gain_pass_with_their_figures() -> None:
    ngram, copy = decoding_checks(seen())
    assert (ngram.name, ngram.status) == ("ngram, 8 in flight", Status.PASS)
    assert ngram.figure == (
        "2.00 times plain's speed; 60% of 1000 drafted tokens accepted; 64 of 64 outputs equal"
    )
    assert copy.numbers["gain"] == 4.0
    assert copy.numbers["tokens_a_pass"] == 5.0


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"gaps_nats": (0.2, 0.01)}, Status.PASS, "62 of 64 outputs equal, the others part at"),
        ({"gaps_nats": (0.2, 3.0)}, Status.FAIL, "1 of them are no tie"),
        ({"accepted": 40}, Status.WARN, "4% of 1000"),
        ({"drafted": 0, "accepted": 0}, Status.WARN, "0% of 0"),
        ({"accepted": 40, "gaps_nats": (3.0,)}, Status.FAIL, "no tie"),
    ],
)
def test_near_ties_are_explained_and_few_accepted_drafts_warned_of(
    change: dict[str, object], status: Status, words: str
) -> None:
    check = decoding_checks(seen(PLAIN, NGRAM, replace(COPY, **change)))[1]  # type: ignore[arg-type]
    assert check.status is status
    assert words in check.figure


def test_a_tie_is_narrower_in_float32() -> None:
    rows = (PLAIN, NGRAM, replace(COPY, gaps_nats=(0.01,)))
    assert decoding_checks(DecodingSeen("float32", False, rows, None))[1].status is Status.FAIL


@pytest.mark.parametrize(
    ("copy_s", "status"), [(1.0, Status.PASS), (2.5, Status.WARN), (5.0, Status.WARN)]
)
def test_copy_is_the_fastest_only_if_it_is_at_every_load(copy_s: float, status: Status) -> None:
    many = [replace(row, in_flight=64) for row in (PLAIN, NGRAM)]
    rows = (PLAIN, NGRAM, COPY, *many, replace(COPY, in_flight=64, wall_s=copy_s))
    (check,) = copy_check(seen(*rows))
    assert check.status is status
    assert "8: 4.00 against 2.00; 64: " in check.figure


@pytest.mark.parametrize(
    ("slept", "status"),
    [
        (SLEPT, Status.PASS),
        (replace(SLEPT, asleep_bytes=15 * GIB), Status.FAIL),
        (replace(SLEPT, differing=1), Status.FAIL),
        (None, Status.NONE),
    ],
)
def test_sleep_gives_memory_back_and_changes_nothing(slept: Slept | None, status: Status) -> None:
    (check,) = sleep_check(seen(slept=slept))
    assert check.status is status


@pytest.mark.parametrize(
    ("one", "other", "at"), [([1, 2, 3], [1, 5, 3], 1), ([1, 2], [1, 2, 3], 2), ([4], [5], 0)]
)
def test_where_two_outputs_part(one: list[int], other: list[int], at: int) -> None:
    assert parting(one, other) == at
