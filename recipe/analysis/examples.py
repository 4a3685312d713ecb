"""The qualitative table (paper, table 4): prompt, a, a' and rewards, one of each kind."""

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.analysis.acting import acting_first, learns_from_refinements
from recipe.analysis.choice import Choice, contrast, group_of
from recipe.analysis.episodes import EpisodeDigest
from recipe.analysis.output import write_csv
from recipe.analysis.runs import Run

MOST_EXAMPLES = 6
UNHELPFUL = "an edit that did not raise the reward"
VERBATIM = "a verbatim copy"
IMPROVES = "an improvement on: "


@dataclass(frozen=True)
class Example:
    """An episode of the qualitative table, and the rule by which it stands there."""

    choice: Choice
    why: str


def choose_examples(runs: Sequence[Run], most: int = MOST_EXAMPLES) -> list[Example]:
    """Episodes that differ in kind, at most `most`, so that a reader sees more than the best case.

    For each verdict on a that an accepted refinement improved on, the most frequent verdict first,
    the clearest episode (see `choose_episode`); then the first refinement that did not help, and
    the first verbatim one. A kind is shown from arms that learn from refinements if they have it.
    An episode with a problem not shown before is preferred.
    """
    kinds: dict[str, list[Choice]] = {}
    for run in acting_first(runs):
        for item in run.episodes:
            kinds.setdefault(_kind(item), []).append(Choice(run, item))
    improved = sorted((kind for kind in kinds if kind.startswith(IMPROVES)), key=_by_size(kinds))
    last = [kind for kind in (UNHELPFUL, VERBATIM) if kind in kinds]
    examples: list[Example] = []
    shown: set[str] = set()
    for kind in [*improved[: most - len(last)], *last]:
        choice = max(kinds[kind], key=lambda item: _merit(item, shown))
        shown.add(choice.digest.problem_id)
        examples.append(Example(choice, kind))
    return examples


def _kind(item: EpisodeDigest) -> str:
    if item.outcome == "verbatim":
        return VERBATIM
    if item.outcome == "improved" and item.accepted:
        return IMPROVES + (item.verdict.replace("_", " ") or "no verdict")
    return UNHELPFUL if item.outcome == "not_improved" else "other"


def _by_size(kinds: Mapping[str, Sequence[Choice]]) -> Callable[[str], tuple[int, str]]:
    return lambda kind: (-len(kinds[kind]), kind)


def _merit(choice: Choice, shown: Container[str]) -> tuple[bool, bool, int, float]:
    """Arms that learn from refinements first, then new problems, then the groups of
    `choose_episode`, then the clearest.
    """
    item = choice.digest
    clear = bool(item.ce_copied_count and item.ce_edited_count)
    return (
        learns_from_refinements(choice.run),
        item.problem_id not in shown,
        -group_of(item),
        contrast(item) if clear else 0.0,
    )


CSV_HEADER = (
    "example",
    "arm",
    "seed",
    "step",
    "problem_id",
    "verdict",
    "refined_verdict",
    "reward",
    "refined_reward",
    "prompt",
    "answer",
    "refined",
)


def write_examples_csv(examples: Iterable[Example], path: Path) -> Path:
    """The examples in full. Texts are JSON strings: a spreadsheet would take a model's "=…" for a
    formula.
    """
    return write_csv(path, CSV_HEADER, [_row(example) for example in examples])


def _row(example: Example) -> tuple[object, ...]:
    run, episode = example.choice.run, example.choice.read()
    texts = (episode.problem_id, episode.verdict, episode.refined_verdict)
    problem, verdict, refined_verdict = (json.dumps(text) for text in texts)
    return (
        example.why,
        run.arm,
        "" if run.seed is None else run.seed,
        episode.step,
        problem,
        verdict,
        refined_verdict,
        episode.reward,
        episode.refined_reward,
        *(json.dumps(text) for text in (episode.prompt, episode.answer, episode.refined)),
    )
