"""The heat map: which episode, where its tokens stand, and what is marked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.analysis.choice import caption, choose_episode, contrast
from recipe.analysis.episodes import EpisodeDigest, parse_episode
from recipe.analysis.heatmap import draw_heatmap, heat_limit, readable_ink, write_heatmap_csv
from recipe.analysis.runs import Run, load_run
from recipe.analysis.sides import difference, displayable, insertion_points, marked_spans, sides_of
from recipe.analysis.style import LIGHT
from recipe.analysis.token_layout import Cell, byte_alphabet, lay_out, readable_tokens, window

MakeEpisode = Callable[..., dict[str, Any]]


def digest(step: int = 1, **changes: Any) -> EpisodeDigest:
    """An accepted episode of 40 tokens, 4 of them edited, with CE 0.1 copied and 2.0 edited."""
    fields: dict[str, Any] = {
        "step": step,
        "offset": 0,
        "accepted": True,
        "verbatim": False,
        "refined_verdict": "accepted",
        "refined_length": 40,
        "edited_length": 4,
        "ce_copied_sum": 3.6,
        "ce_copied_count": 36,
        "ce_edited_sum": 8.0,
        "ce_edited_count": 4,
    }
    return EpisodeDigest(**fields | changes)


def run_of(*episodes: EpisodeDigest) -> Run:
    return Run(Path("run"), "none", 0, "stress", None, {}, (), {}, episodes, ())


def saved_run(folder: Path, *records: dict[str, Any]) -> Run:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "episodes.jsonl").write_text(lines)
    return load_run(folder)


def chosen_step(*episodes: EpisodeDigest) -> int | None:
    choice = choose_episode([run_of(*episodes)])
    return None if choice is None else choice.digest.step


def test_contrast_is_the_difference_of_the_two_means() -> None:
    assert contrast(digest()) == pytest.approx(2.0 - 0.1)


def test_the_clearest_of_equally_fit_episodes_is_chosen_and_of_equals_the_first() -> None:
    assert chosen_step(digest(1), digest(2, ce_edited_sum=12.0), digest(3)) == 2
    assert chosen_step(digest(4), digest(5)) == 4


@pytest.mark.parametrize(
    "unfit",
    [
        {"edited_length": 1, "ce_edited_count": 1},
        {"edited_length": 17, "refined_length": 100},
        {"edited_length": 11},
        {"refined_length": 241},
        {"refined_verdict": "wrong_answer"},
    ],
    ids=["one token", "many tokens", "over a quarter", "long", "not passing"],
)
def test_a_fit_episode_goes_before_a_clearer_unfit_one(unfit: dict[str, Any]) -> None:
    clearer = digest(1, **{"ce_edited_sum": 99.0} | unfit)
    assert chosen_step(clearer, digest(2)) == 2
    assert chosen_step(clearer) == 1


def test_without_an_accepted_episode_with_ce_nothing_is_chosen() -> None:
    assert chosen_step() is None
    assert chosen_step(digest(accepted=False)) is None
    assert chosen_step(digest(ce_edited_count=0), digest(ce_copied_count=0)) is None


def test_the_caption_gives_the_run_beside_the_episode() -> None:
    # Over both: copied (3.6 + 3.6) / 72 = 0.10, edited (12 + 8) / 8 = 2.50; here 12 / 4 = 3.00.
    choice = choose_episode([run_of(digest(1, ce_edited_sum=12.0), digest(2))])
    assert choice is not None
    assert "0.10 / 3.00 here, 0.10 / 2.50 over the run's 2 accepted episodes" in caption(choice)


def test_tokens_break_lines_where_the_text_does() -> None:
    layout = lay_out(["if x:", "\n    ", "y", "\n"], 20)
    assert layout.cells == (
        Cell(0, 0, 0, "if x:"),
        Cell(1, 0, 5, "↵", breaks=True),
        Cell(1, 1, 0, "    "),
        Cell(2, 1, 4, "y"),
        Cell(3, 1, 5, "↵", breaks=True),
    )
    assert layout.line_numbers == (1, 2)


def test_long_lines_wrap_and_keep_their_number() -> None:
    layout = lay_out(["abc", "defg", "\n", "h"], 5)
    texts = [(cell.token, cell.row, cell.column, cell.text) for cell in layout.cells]
    assert texts == [
        (0, 0, 0, "abc"),
        (1, 0, 3, "de"),
        (1, 1, 0, "fg"),
        (2, 1, 2, "↵"),
        (3, 2, 0, "h"),
    ]
    assert layout.line_numbers == (1, None, 2)


def test_a_layout_spells_its_tokens() -> None:
    text = "def f(x):\n\n    return x  # 'long line to be wrapped'\n"
    layout = lay_out([text[i : i + 7] for i in range(0, len(text), 7)], 16)
    assert "".join("\n" if cell.breaks else cell.text for cell in layout.cells) == text


def test_no_tokens_give_one_empty_row() -> None:
    assert (lay_out([], 10).rows, lay_out([], 10).cells) == (1, ())


@pytest.mark.parametrize(
    ("rows", "focus", "shown"),
    [
        (8, [7], range(0, 8)),
        (30, [2, 5], range(0, 8)),
        (30, [20, 21], range(18, 26)),
        (30, [29], range(22, 30)),
        (30, [], range(0, 8)),
    ],
)
def test_of_a_long_text_the_rows_around_the_first_edit_are_shown(
    rows: int, focus: list[int], shown: range
) -> None:
    assert window(rows, focus, max_rows=8) == shown


def test_byte_level_tokens_are_decoded_and_texts_left_alone() -> None:
    assert readable_tokens(["def", "Ġf", "Ċ", "\u00c3\u00b8"], "def f\nø") == (
        "def",
        " f",
        "\n",
        "ø",
    )
    assert readable_tokens(["def", " f", "\n"], "def f\n") == ("def", " f", "\n")
    assert readable_tokens(["Ġ", "x"], "Ġx") == ("Ġ", "x")


def test_the_byte_alphabet_is_one_sign_for_each_byte() -> None:
    assert sorted(byte_alphabet().values()) == list(range(256))
    assert (byte_alphabet()["Ġ"], byte_alphabet()["Ċ"], byte_alphabet()["A"]) == (32, 10, 65)


def test_a_difference_names_what_is_dropped_and_where_something_is_added() -> None:
    change = difference(["a", "b", "c", "d"], ["a", "x", "c", "d", "e"])
    assert change.dropped == (False, True, False, False)
    assert change.insertions == (4,)


def test_edits_are_marked_on_both_sides_where_they_stand(new_episode: MakeEpisode) -> None:
    episode, problem = parse_episode(
        new_episode(
            answer="a = 1\nb",
            refined="a = 22\nb+",
            answer_tokens=["a", " = ", "1", "\n", "b"],
            refined_tokens=["a", " = ", "2", "2", "\n", "b", "+"],
            copied=[1, 1, 0, 0, 1, 1, 0],
            ce=[0, 0, 3, 1, 0, 0, 4],
        )
    )
    assert episode is not None and problem is None
    before, after = sides_of(episode)
    assert marked_spans(before) == [(0, 4, 5)]
    assert insertion_points(before) == [(1, 1)]
    assert marked_spans(after) == [(0, 4, 6), (1, 1, 2)]
    assert before.title == "a, the rollout: R(a) = −0.30, wrong answer"
    assert after.title == "a′, refined: R(a′) = +1.00, accepted"


def test_signs_without_a_glyph_are_replaced_one_for_one() -> None:
    assert displayable("print('ø')\n\t漢字") == "print('ø')\n\t\ufffd\ufffd"


def test_the_colour_scale_holds_all_tokens_up_to_ten_nats() -> None:
    assert heat_limit([0.1, 0.2]) == 1.0
    assert heat_limit([0.1, 4.5]) == 4.5
    assert heat_limit([50.0]) == 10.0


def test_ink_is_readable_on_every_colour() -> None:
    assert readable_ink((1.0, 1.0, 1.0)) == "#111111"
    assert readable_ink((0.3, 0.0, 0.0)) == "#f4f4f4"


def test_the_picture_shows_every_visible_token_and_a_note_for_the_rest(
    tmp_path: Path, new_episode: MakeEpisode
) -> None:
    lines = [f"line_{number}\n" for number in range(60)]
    record = new_episode(
        answer_tokens=lines,
        refined_tokens=[*lines[:-1], "last$\n"],
        copied=[1] * 59 + [0],
        ce=[0.0] * 59 + [5.0],
        prompt="Costs $5 and $6. " * 99,
    )
    choice = choose_episode([saved_run(tmp_path, record)])
    assert choice is not None
    figure = draw_heatmap(choice, LIGHT)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "last$" in texts
    assert "line_0" not in texts
    assert texts.count("… 20 rows above not shown") == 2


def test_the_csv_has_a_line_per_token(tmp_path: Path, new_episode: MakeEpisode) -> None:
    record = new_episode(
        answer_tokens=["a", "\n"], refined_tokens=["a", "b"], copied=[1, 0], ce=[0.25, 3.0]
    )
    choice = choose_episode([saved_run(tmp_path, record)])
    assert choice is not None
    assert write_heatmap_csv(choice, tmp_path / "out" / "heatmap.csv").read_text().split() == [
        "text,position,token,edited,ce_nats",
        "a,0,'a',0,",
        "a,1,'\\n',1,",
        "a_refined,0,'a',0,0.25",
        "a_refined,1,'b',1,3.0",
    ]
