"""The report's page: what the template is given, and the rendering of it.

The page is one file: figures are inline, there is no script, and its content security policy lets a
browser load nothing. What comes from runs is escaped by the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.colors import LinearSegmentedColormap, to_hex

from recipe.analysis.episodes import OUTCOMES
from recipe.analysis.heatmap import readable_ink
from recipe.analysis.marked_text import HEAT_LEVELS, EpisodeView, Span
from recipe.analysis.sheets import Sheet, draw_plot
from recipe.analysis.sides import signed
from recipe.analysis.style import DARK, LIGHT, Theme
from recipe.analysis.svg import PAGE, inline_svg, marker_svg, theme_variables
from recipe.analysis.tables import Table
from recipe.analysis.verdict import Verdict

SIGNED_LEVELS = 10
"""Levels of a quantity with a sign, on either side of zero."""
SIGNED_HEAT = 2
"""The level of cross entropy from which a line break is shown by a sign: as `heatmap` does."""
BREAK = Markup('<span class="break" aria-hidden="true">↵</span>')
CONTENTS = (
    ("arms", "Arms in numbers"),
    ("training", "Training"),
    ("cross-entropy", "Cross entropy"),
    ("ablations", "Ablations"),
    ("examples", "Examples"),
    ("cost-of-refining", "Cost"),
    ("observatory", "Observatory"),
    ("runs", "Runs"),
)


@dataclass(frozen=True)
class KeyView:
    """A line of a legend: the drawn mark and its words."""

    mark: Markup
    label: str


@dataclass(frozen=True)
class SheetView:
    """A figure as the template shows it; `plots` are drawn, `words` say what each shows, `files`
    are names beside the page.
    """

    name: str
    title: str
    caption: str
    keys: tuple[KeyView, ...]
    plots: tuple[Markup, ...]
    notes: tuple[str, ...]
    words: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """Everything on the page. `refresh_s` is 0 for a page that does not reload itself."""

    title: str
    state: str
    refresh_s: int
    verdict: Verdict
    answer: SheetView
    summary: Table
    summary_files: Sequence[str]
    benchmarks: Table | None
    findings: Sequence[str]
    training: Sequence[SheetView]
    heatmap: EpisodeView | None
    heatmap_caption: str
    heatmap_files: Sequence[str]
    no_heatmap: str
    ablations: Sequence[SheetView]
    absent_ablations: Sequence[str]
    examples: Sequence[EpisodeView]
    examples_files: Sequence[str]
    cost: SheetView
    cost_table: Table
    cost_words: str
    observatory: Sequence[SheetView]
    verdicts: Table | None
    failures: Table | None
    runs: Table

    @property
    def examples_table(self) -> Table:
        """The rewards of the examples, one line each."""
        header = ("example", "R(a)", "R(a′)", "from")
        rows = (
            (view.why, signed(view.reward), signed(view.refined_reward), view.where)
            for view in self.examples
        )
        return Table(header, tuple(rows))

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """Ids and titles of the sections, for the page's navigation."""
        return CONTENTS

    @property
    def style(self) -> Markup:
        """The page's style sheet."""
        return _style_sheet()


def view_sheet(sheet: Sheet, files: Sequence[str] = ()) -> SheetView:
    """Draw a figure for the page, plot by plot."""
    return SheetView(
        name=sheet.name,
        title=sheet.title,
        caption=sheet.caption,
        keys=tuple(
            KeyView(Markup(marker_svg(key.marker, key.colour(PAGE))), key.label)
            for key in sheet.keys
        ),
        plots=tuple(
            Markup(inline_svg(draw_plot(plot, PAGE), f"{sheet.name}-{index}", plot.alt))
            for index, plot in enumerate(sheet.plots)
        ),
        notes=tuple(" ".join(note.split()) for note in sheet.notes),
        words=tuple(plot.alt for plot in sheet.plots),
        files=tuple(files),
    )


def render(page: Page) -> bytes:
    """The page in UTF-8; what UTF-8 cannot hold (half of a surrogate pair) becomes "?"."""
    text = environment().get_template("report.html.jinja").render(page=page)
    return text.encode("utf-8", "replace")


@cache
def environment() -> Environment:
    """The templates of this package, which escape everything that is not marked as ours."""
    environment = Environment(
        loader=PackageLoader("recipe.analysis"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"breaks": _breaks, "visible": _visible, "outcome": _outcome}
    return environment


def _outcome(key: str) -> str:
    """What became of a rollout, as a reader is told."""
    return OUTCOMES.get(key, key.replace("_", " "))


def _visible(text: str) -> str:
    """A token with its blanks shown, since it stands alone."""
    return text.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")


def _breaks(span: Span) -> Markup:
    """The span's text, a line break that is marked or hot with a sign before it."""
    text = escape(span.text)
    if not span.marked and span.heat < SIGNED_HEAT:
        return text
    return text.replace("\n", BREAK + "\n")


def style_values() -> dict[str, object]:
    """What a style sheet is rendered with: the colours of both themes."""
    return {
        "light": theme_variables(LIGHT),
        "dark": theme_variables(DARK),
        "light_heat": _heat(LIGHT),
        "dark_heat": _heat(DARK),
        "light_signed": _signed(LIGHT),
        "dark_signed": _signed(DARK),
    }


@cache
def _style_sheet() -> Markup:
    return Markup(environment().get_template("report.css.jinja").render(style_values()))


def _signed(theme: Theme) -> list[tuple[str, str, str]]:
    """Class, background and ink of each level of a quantity with a sign."""
    found = []
    for name, end in (("n", theme.arms["dynamic_sft"]), ("p", theme.arms["chord_phi"])):
        colours = LinearSegmentedColormap.from_list(name, (theme.background, end))
        for level in range(1, SIGNED_LEVELS + 1):
            colour = colours(level / SIGNED_LEVELS)
            found.append((f"{name}{level}", to_hex(colour), readable_ink(colour[:3])))
    return found


def _heat(theme: Theme) -> list[tuple[str, str]]:
    """Background and ink of each level of cross entropy."""
    colours = LinearSegmentedColormap.from_list("heat", theme.heat)
    levels = [colours(level / HEAT_LEVELS) for level in range(HEAT_LEVELS + 1)]
    return [(to_hex(level), readable_ink(level[:3])) for level in levels]
