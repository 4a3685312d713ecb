"""Whether a draft token is accepted: the exact rule at each temperature.

Writing p for the distribution from which plain decoding would draw the next token, a draft token x
is accepted with probability p(x); if it is not, the next token is drawn from p without x,
renormalised. The token that results has distribution p, whatever the draft is: p(x) for x, and
(1 - p(x)) · p(y) / (1 - p(x)) = p(y) for any other y. Greedy decoding is the case where p is
concentrated on the arg-max. Source: speculative sampling (Leviathan et al., arXiv 2211.17192) with
a draft that is certain of itself; the use of the rollout as draft is ours.

The engine returns raw log-probabilities, those of temperature 1, of the draft token alone or of the
likeliest k. At another temperature τ, p(x) = q(x)^(1/τ) / Z with Z = Σ q^(1/τ) over the whole
vocabulary, of which the unlisted tail is only bounded; see `tempered_probability`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Bernoulli = Callable[[float], bool]
"""True with the probability it is given."""

TOP_LOG_PROBS = 20
"""Tokens to list at each position if the temperature asks for it; vLLM's default maximum."""
ROUNDING = 1e-6
"""Error of a sum of float32 probabilities, which is the least that a tail can be known to hold."""


class Ruling(StrEnum):
    """What becomes of one draft token."""

    ACCEPT = "accept"
    REPLACE = "replace"  # by the listed arg-max
    REDRAW = "redraw"  # the engine draws from all other tokens
    DRAW = "draw"  # undecided: the engine draws from all tokens, as in plain decoding


@dataclass(frozen=True)
class TokenScore:
    """The raw log-probabilities (nats) of some tokens at one position, best first.

    `Sampling.listed` says which tokens are listed: the draft token alone if it is 0, otherwise that
    many of the likeliest.
    """

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of a decoding: the whole distribution at one temperature.

    Attributes:
        temperature: 0 is greedy.
        vocabulary_size: number of tokens that can be drawn, or more; needed at temperatures other
            than 0 and 1, to bound the tail.
        tolerance: largest error of p(x) that is accepted; above it the engine draws.
        top_p, top_k: only their neutral values are accepted unless the temperature is 0.
    """

    temperature: float
    vocabulary_size: int | None = None
    tolerance: float = 1e-6
    top_p: float = 1.0
    top_k: int = -1

    def __post_init__(self) -> None:
        if self.temperature == 0:
            return
        if self.top_p < 1.0 or self.top_k > 0:
            raise ValueError(
                f"verify decoding cannot keep top_p={self.top_p}, top_k={self.top_k} exact: the "
                "engine does not say which tokens it would cut off; decode with `plain` or "
                "`ngram`, or set top_p=1.0 and top_k=-1"
            )
        if self.temperature < 0.01:
            raise ValueError(
                f"verify decoding at temperature {self.temperature}: vLLM raises temperatures "
                "between 0 and 0.01 to 0.01; use 0 (greedy) or at least 0.01"
            )
        if self.temperature != 1 and self.vocabulary_size is None:
            raise ValueError(
                f"verify decoding at temperature {self.temperature} needs the size of the "
                "vocabulary; give it, or use temperature 0 or 1"
            )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def listed(self) -> int:
        """How many of the likeliest tokens a score lists; 0 for the draft token alone."""
        if self.greedy:
            return 1
        if self.temperature == 1:
            return 0
        return min(TOP_LOG_PROBS, self.vocabulary_size or TOP_LOG_PROBS)

    def rule(self, token: int, score: TokenScore, accepts: Bernoulli) -> Ruling:
        """Decide on one draft token."""
        if self.greedy:
            return Ruling.ACCEPT if token == score.token_ids[0] else Ruling.REPLACE
        probability = self.probability(token, score)
        if probability is None:
            return Ruling.DRAW
        return Ruling.ACCEPT if accepts(probability) else Ruling.REDRAW

    def probability(self, token: int, score: TokenScore) -> float | None:
        """p(token) in [0, 1]; None if the listed tokens bound it less closely than `tolerance`."""
        if self.temperature == 1:
            # The only one there is. SGLang lists the vocabulary's last token by another id.
            (log_prob,) = score.log_probs
            return min(1.0, math.exp(log_prob))
        assert self.vocabulary_size is not None
        low, high = tempered_probability(token, score, self.temperature, self.vocabulary_size)
        return (low + high) / 2 if high - low <= self.tolerance else None


def tempered_probability(
    token: int, score: TokenScore, temperature: float, vocabulary_size: int
) -> tuple[float, float]:
    """Bounds on q(token)^r / Σ q^r, with r = 1/temperature, from the likeliest k tokens.

    The n unlisted tokens share the probability m = 1 - Σ listed q, each at most the least listed
    q_k. So their Σ q^r lies between m · q_k^(r-1) and m^r · n^(1-r): the first is the greater for
    r > 1 (in as few tokens as possible), the second for r < 1 (spread evenly). Nothing is known of
    an unlisted token: (0, 1).
    """
    if token not in score.token_ids:
        return 0.0, 1.0
    r = 1.0 / temperature
    # In units of the likeliest token's q^r, which alone underflows at low temperatures.
    weights = [math.exp((log_prob - score.log_probs[0]) * r) for log_prob in score.log_probs]
    tail_low, tail_high = _tail(score, r, vocabulary_size)
    weight, listed = weights[score.token_ids.index(token)], sum(weights)
    return weight / (listed + tail_high), weight / (listed + tail_low)


def _tail(score: TokenScore, r: float, vocabulary_size: int) -> tuple[float, float]:
    """Bounds on Σ (q/q_1)^r over the unlisted tokens."""
    unlisted = vocabulary_size - len(score.token_ids)
    if unlisted <= 0:
        return 0.0, 0.0
    unseen = max(1.0 - sum(map(math.exp, score.log_probs)), ROUNDING)
    first, last = score.log_probs[0], score.log_probs[-1]
    largest = unseen * math.exp(last * (r - 1) - first * r)
    spread = unlisted * math.exp((math.log(unseen / unlisted) - first) * r)
    return min(largest, spread), max(largest, spread)
