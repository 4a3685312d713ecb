"""The figure of a study's comparisons: each pair's difference as a dot, its mean and interval."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes

from recipe.analysis.sheets import Key, Plot, Sheet, height_for
from recipe.analysis.style import Theme
from recipe.study.plan import Study
from recipe.study.results import Compared

HEADER = ("family", "first", "second", "seed", "difference", "mean", "low", "high", "p", "claimed")
LABEL_COLUMNS = 30


def differences_sheet(study: Study, compared: Sequence[Compared]) -> Sheet:
    """One row a comparison, in the order of the file."""
    labels = [textwrap.fill(one.label, LABEL_COLUMNS) for one in compared]

    def draw(axes: Axes, theme: Theme) -> None:
        axes.set_title("Outcome at the last step")
        axes.set_xlabel("difference, paired by seed")
        axes.axvline(0, color=theme.muted, linewidth=0.9)
        for row, one in enumerate(reversed(compared)):
            _draw_row(axes, row, one, theme)
        axes.set_yticks(range(len(labels)), labels[::-1])
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.margins(x=0.08)

    words = "; ".join(_in_words(one) for one in compared)
    return Sheet(
        name="differences",
        title=f"{study.name}: differences",
        caption="",
        plots=(Plot("Outcome at the last step", f"{words}.", draw, height_for(labels)),),
        keys=(
            Key("mean and 95 % interval, shown", _shown, "o"),
            Key("mean and 95 % interval, not shown", _not_shown, "s"),
        ),
        notes=(
            "dots: one seed each",
            f"shown: p within {study.level:g} over the comparisons of its family (Holm)",
        ),
        header=HEADER,
        rows=tuple(row for one in compared for row in _rows(one)),
    )


def _shown(theme: Theme) -> str:
    return theme.arms["dynamic_sft"]


def _not_shown(theme: Theme) -> str:
    return theme.muted


def _draw_row(axes: Axes, row: int, one: Compared, theme: Theme) -> None:
    result = one.result
    assert result is not None
    colour = _shown(theme) if one.claimed else _not_shown(theme)
    axes.plot(
        result.differences,
        [row - 0.18] * len(result.differences),
        "o",
        color=colour,
        alpha=0.45,
        markersize=4,
        markeredgewidth=0,
    )
    if result.p_value is not None:
        axes.plot([result.low, result.high], [row, row], color=colour, linewidth=2)
    axes.plot(result.mean, row, "o" if one.claimed else "s", color=colour, markersize=7)


def _in_words(one: Compared) -> str:
    result = one.result
    assert result is not None
    text = f"{one.label}: {result.mean:+.2f} over {len(result.seeds)} pairs"
    if result.p_value is None:
        return text
    verdict = "shown" if one.claimed else "not shown"
    return f"{text} ({result.low:+.2f} to {result.high:+.2f}), {verdict}"


def _rows(one: Compared) -> list[tuple[object, ...]]:
    result = one.result
    assert result is not None
    tail = (result.mean, result.low, result.high, result.p_value, one.claimed)
    pairs = zip(result.seeds, result.differences, strict=True)
    return [(one.family, one.first, one.second, seed, value, *tail) for seed, value in pairs]
