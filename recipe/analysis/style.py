"""How figures look: themes, one fixed colour per arm, and saving.

Colours follow Okabe and Ito (2008), which stay apart under the common forms of colour blindness;
marker and dash repeat the distinction for print in grey. Figures are built without pyplot, so no
global state is touched.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from recipe.analysis.names import label_of
from recipe.analysis.output import write_whole

README_WIDTH_IN = 9.2
README_DPI = 200
"""Twice the density at which a README shows a picture of `README_WIDTH_IN`."""


@dataclass(frozen=True)
class Theme:
    """Colours of one theme. `suffix` ends the file names of its pictures; `heat` runs from no to
    high cross entropy; `parts` are for shares of a whole.
    """

    suffix: str
    background: str
    ink: str
    muted: str
    grid: str
    heat: tuple[str, ...]
    written: str
    dropped: str
    arms: Mapping[str, str]
    other_arms: tuple[str, ...]
    parts: tuple[str, ...]


LIGHT = Theme(
    suffix="",
    background="#ffffff",
    ink="#1f2328",
    muted="#656d76",
    grid="#e3e6ea",
    heat=("#ffffff", "#fee3b4", "#fdae61", "#e6602c", "#a11a1a"),
    written="#0072b2",
    dropped="#656d76",
    arms={
        "none": "#5f6670",
        "static_kl": "#e69f00",
        "dynamic_sft": "#0072b2",
        "dynamic_advantage": "#cc6fa5",
        "dynamic_reward": "#009e73",
        "chord_mu": "#56b4e9",
        "chord_phi": "#d55e00",
    },
    other_arms=("#332288", "#999933", "#882255", "#44aa99", "#117733", "#b58900"),
    parts=(
        "#a9b2bc",
        "#d55e00",
        "#8f7cc3",
        "#c9bce6",
        "#e9c46a",
        "#cc6fa5",
        "#0072b2",
        "#7cc0ea",
        "#009e73",
        "#d9dee3",
    ),
)

DARK = Theme(
    suffix="-dark",
    background="#0d1117",
    ink="#e6edf3",
    muted="#9198a1",
    grid="#262c36",
    heat=("#0d1117", "#4a2413", "#9c3f14", "#e8772e", "#ffd08a"),
    written="#58b7ff",
    dropped="#9198a1",
    arms={
        "none": "#aab2bd",
        "static_kl": "#e69f00",
        "dynamic_sft": "#56b4e9",
        "dynamic_advantage": "#e08fc0",
        "dynamic_reward": "#2cc295",
        "chord_mu": "#f0e442",
        "chord_phi": "#f0743a",
    },
    other_arms=("#a99cf0", "#cccc66", "#e07aa8", "#7fdccb", "#6fcf8a", "#ffe08a"),
    parts=(
        "#76818d",
        "#f0743a",
        "#a592e0",
        "#6a5b9c",
        "#d3ad45",
        "#e08fc0",
        "#2f8fd6",
        "#8fcdf5",
        "#2cc295",
        "#414b57",
    ),
)

THEMES = (LIGHT, DARK)

MARKERS = {
    "none": "X",
    "static_kl": "s",
    "dynamic_sft": "o",
    "dynamic_advantage": "^",
    "dynamic_reward": "D",
    "chord_mu": "P",
    "chord_phi": "v",
}
OTHER_MARKERS = ("h", "<", ">", "p", "d", "*")


@dataclass(frozen=True)
class ArmStyle:
    """How one arm is drawn and named."""

    label: str
    colour: str
    marker: str


def arm_styles(arms: Sequence[str], theme: Theme) -> dict[str, ArmStyle]:
    """Known arms keep their colour in every figure; others get theirs by alphabetical order within
    the figure, with another marker when the colours begin again.
    """
    others = sorted(arm for arm in arms if arm not in theme.arms)
    styles = {}
    for arm in arms:
        if arm in theme.arms:
            styles[arm] = ArmStyle(label_of(arm), theme.arms[arm], MARKERS[arm])
        else:
            turn, index = divmod(others.index(arm), len(theme.other_arms))
            marker = OTHER_MARKERS[(index + turn) % len(OTHER_MARKERS)]
            styles[arm] = ArmStyle(label_of(arm), theme.other_arms[index], marker)
    return styles


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Draw inside this context to get the theme's colours and sizes."""
    settings = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": theme.ink,
        "text.parse_math": False,
        "axes.facecolor": theme.background,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.ink,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "xtick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.color": theme.muted,
        "ytick.labelcolor": theme.ink,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.frameon": False,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings):
        yield


def save(figure: Figure, stem: Path, formats: Sequence[str]) -> list[Path]:
    """Write `stem.<format>` for each format, without dates, so that the same data gives the same
    bytes.
    """
    paths = []
    for extension in formats:
        path = stem.with_name(f"{stem.name}.{extension}")
        metadata = {"CreationDate": None} if extension == "pdf" else None
        content = BytesIO()
        figure.savefig(content, format=extension, dpi=README_DPI, metadata=metadata)
        # Laid out once: the next format takes the same places.
        figure.set_layout_engine("none")
        paths.append(write_whole(path, content.getvalue()))
    return paths
