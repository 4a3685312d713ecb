"""Files are whole or absent, and what they hold is safe to show."""

from pathlib import Path

import pytest

from recipe.analysis.names import label_of
from recipe.analysis.output import write_csv, write_whole
from recipe.analysis.printable import printable


def test_a_file_is_replaced_in_one_step_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    write_whole(path, b"old")
    reader = path.open("rb")
    write_whole(path, b"new")
    assert (reader.read(), path.read_bytes()) == (b"old", b"new")
    assert list(path.parent.iterdir()) == [path]
    reader.close()


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "page", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_table_survives_signs_that_utf_8_cannot_hold(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", ["a"], [["\ud800,b"]])
    assert path.read_bytes() == b'a\r\n"?,b"\r\n'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode 漢字 😀", "plain ünïcode 漢字 😀"),
        ("a\n\tb\r\n", "a\n\tb\n"),
        ("\x1b[31mred\x00", "\ufffd[31mred\ufffd"),
        ("\u202eevil\u2066", "\ufffdevil\ufffd"),
        ("\ud800", "\ufffd"),
        ("👩\u200d💻 \u0646\u200c\u0645", "👩\u200d💻 \u0646\u200c\u0645"),  # joined writing
    ],
)
def test_signs_that_steer_are_replaced_and_signs_that_show_are_kept(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_label_of_any_length_can_be_drawn() -> None:
    assert label_of("dynamic_sft") == "dynamic (sft)"
    assert label_of("sane/none") == "sane: none"
    assert label_of("x" * 88) == "x" * 88
    assert label_of("x" * 500) == "x" * 87 + "…"


@pytest.mark.parametrize("text", ["👩‍👩‍👧", "می‌خواهم", "क्‍ष"])
def test_joiners_that_words_and_emoji_are_spelt_with_stay(text: str) -> None:
    assert printable(text) == text
