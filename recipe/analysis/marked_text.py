"""The two texts of an episode as a page shows them: spans of text, each with what marks it.

Everything here comes from a model's output and is not to be trusted: signs that a browser would
obey rather than show are replaced, and the page's template escapes the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from recipe.analysis.choice import Choice
from recipe.analysis.episodes import Episode
from recipe.analysis.heatmap import asked_ce, heat_limit
from recipe.analysis.names import label_of
from recipe.analysis.printable import printable
from recipe.analysis.reading import WORDS
from recipe.analysis.sides import Side, sides_of
from recipe.analysis.token_layout import readable_tokens

HEAT_LEVELS = 20
MAX_TOKENS_SHOWN = 4000
MAX_PROMPT_CHARACTERS = 4000


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens that look alike. `heat` is 0 to `HEAT_LEVELS`; `hint` is the CE in words;
    `inserted_before` is the place in a at which a' has more.
    """

    text: str
    marked: bool = False
    heat: int = 0
    hint: str = ""
    inserted_before: bool = False


@dataclass(frozen=True)
class EpisodeView:
    """One episode, ready for the page. `omitted` counts tokens of a and a' that are not shown,
    `reading` says in words how the CE was read.
    """

    why: str
    where: str
    prompt: str
    before: tuple[Span, ...]
    after: tuple[Span, ...]
    before_title: str
    after_title: str
    reward: float
    refined_reward: float
    has_ce: bool
    heat_limit: float
    exceeds_limit: bool
    reading: str
    omitted: tuple[int, int]


def view_of(choice: Choice, why: str = "") -> EpisodeView:
    """Read the episode and mark it; `ValueError` or `OSError` if its file changed or went."""
    episode, run = choice.read(), choice.run
    before, after = sides_of(episode)
    ce = asked_ce(episode)
    limit = heat_limit(ce)
    seed = "" if run.seed is None else f", seed {run.seed}"
    prompt = printable(episode.prompt.strip())
    cut = len(prompt) > MAX_PROMPT_CHARACTERS
    return EpisodeView(
        why=why,
        where=f"{label_of(run.arm)}{seed}, step {episode.step}, problem {episode.problem_id}",
        prompt=prompt[:MAX_PROMPT_CHARACTERS] + (" …" if cut else ""),
        before=_spans(_words(episode.answer_tokens, episode.answer), before, limit),
        after=_spans(_words(episode.refined_tokens, episode.refined), after, limit),
        before_title=before.title,
        after_title=after.title,
        reward=episode.reward,
        refined_reward=episode.refined_reward,
        has_ce=episode.ce is not None,
        heat_limit=limit,
        exceeds_limit=max(ce, default=0.0) > limit,
        reading=WORDS[episode.reading],
        omitted=_omitted(episode),
    )


def _words(tokens: Sequence[str], text: str) -> list[str]:
    return [printable(token) for token in readable_tokens(tokens, text)[:MAX_TOKENS_SHOWN]]


def _omitted(episode: Episode) -> tuple[int, int]:
    first, second = (
        max(0, len(tokens) - MAX_TOKENS_SHOWN)
        for tokens in (episode.answer_tokens, episode.refined_tokens)
    )
    return first, second


def _spans(words: Sequence[str], side: Side, limit: float) -> tuple[Span, ...]:
    """Tokens with CE stay apart, each with its hint; others join their like."""
    spans: list[Span] = []
    insertions = set(side.insertions)
    for index, word in enumerate(words):
        ce = None if side.ce is None else side.ce[index]
        span = Span(
            text=word,
            marked=side.marked[index],
            heat=0 if ce is None else round(HEAT_LEVELS * min(1.0, max(0.0, ce) / limit)),
            hint="" if ce is None else f"CE {ce:.3g} nats",
            inserted_before=index in insertions,
        )
        last = spans[-1] if spans else None
        is_plain = ce is None and not (last and last.hint) and not span.inserted_before
        if last and is_plain and last.marked == span.marked:
            spans[-1] = Span(last.text + word, last.marked, inserted_before=last.inserted_before)
        else:
            spans.append(span)
    if len(words) in insertions:
        spans.append(Span("", inserted_before=True))
    return tuple(spans)
