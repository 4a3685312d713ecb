"""Which refined episode a reader is shown, by a rule and not by hand."""

from collections.abc import Iterable
from dataclasses import dataclass

from recipe.analysis.acting import acting_first, learns_from_refinements
from recipe.analysis.episodes import Episode, EpisodeDigest, mean_ce
from recipe.analysis.runs import Run

MODERATE_EDIT_TOKENS = range(2, 17)
MODERATE_EDIT_SHARE = 0.25
SHORT_ANSWER_TOKENS = 240


@dataclass(frozen=True)
class Choice:
    """An episode of a run, chosen for display."""

    run: Run
    digest: EpisodeDigest

    def read(self) -> Episode:
        """The full episode, from the run folder."""
        return self.run.read_episode(self.digest)


def choose_episode(runs: Iterable[Run]) -> Choice | None:
    """The clearest episode of all runs; None if no accepted episode has CE on both copied and
    edited tokens.

    Only if no run that learns from refinements has one is it taken from an arm that only observes
    them. The best group that is not empty is taken, and of it the episode with the greatest
    difference between mean CE on edited and on copied tokens (of equals the first in the order of
    reports and steps):
    1. a' passes all tests, has at most 240 tokens, and 2 to 16 of them, a quarter at most, are
       edited;
    2. the same edit, whatever the verdict on a';
    3. any.
    """
    choices = [
        Choice(run, item)
        for run in acting_first(tuple(runs))
        for item in run.episodes
        if item.accepted and item.ce_copied_count and item.ce_edited_count
    ]
    return max(choices, key=_clarity, default=None)


def _clarity(choice: Choice) -> tuple[bool, int, float]:
    """Runs that learn from refinements first, whatever an arm shows that only observes them."""
    acts = learns_from_refinements(choice.run)
    return acts, -group_of(choice.digest), contrast(choice.digest)


def group_of(item: EpisodeDigest) -> int:
    moderate = (
        item.edited_length in MODERATE_EDIT_TOKENS
        and item.edited_length <= MODERATE_EDIT_SHARE * item.refined_length
        and item.refined_length <= SHORT_ANSWER_TOKENS
    )
    if not moderate:
        return 3
    return 1 if item.refined_verdict == "accepted" else 2


def contrast(item: EpisodeDigest) -> float:
    """Mean CE on edited minus mean CE on copied tokens, in nats."""
    return item.ce_edited_sum / item.ce_edited_count - item.ce_copied_sum / item.ce_copied_count


def caption(choice: Choice) -> str:
    """Mean CE on copied and edited tokens of this episode, and of all episodes of its run that
    carry CE.
    """
    item, run = choice.digest, choice.run
    others = [other for other in run.episodes if other.ce_copied_count + other.ce_edited_count]
    here, all_of_run = (
        "{:.2f} / {:.2f}".format(*mean_ce(episodes)) for episodes in ([item], others)
    )
    return (
        f"Mean CE, copied / edited tokens: {here} here, {all_of_run} over the run's {len(others)} "
        "accepted episodes. Chosen as the clearest, not as typical."
        + ("" if learns_from_refinements(run) else " In this arm refinements are only observed.")
    )
