"""Verify-then-resume decoding: the rollout is the draft of its own refinement.

A pure state machine: `begin` a state, ask `next_request` what the engine should do, `advance` the
state by the engine's reply, until `next_request` has nothing more to ask; `State.output` is then
what plain decoding would have produced: the same tokens when greedy, the same distribution when
sampled. It knows no engine and no event loop; `engine.py` connects the two.

1. Verify: one prefill of prompt and draft returns the log-probabilities of all draft tokens, which
   are accepted from the left (`acceptance.py`), and draws one token after them: for a draft that
   was right throughout, the end token.
2. After a rejection the replaced token is taken for a substitution of one for one, and the rest of
   the draft is verified at once.
3. If that fails at its first token, tokens are generated freely, first a few, then twice as
   many each time, until the last of them are found in the draft; the rest of it is verified again.
4. The last call that is left generates whatever remains.

Every token of the output is drawn once, given those before it, and none is thrown away for what it
is: so where to verify and when to stop trying is free, and no setting but the
sampling parameters can change the distribution. Source: ours, see `acceptance.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from refiner_worker.acceptance import Bernoulli, Ruling, Sampling, TokenScore


class Decoding(StrEnum):
    """How refinements are decoded (`refiner.decoding`).

    All but `verify` are one request each. With `ngram` and `copy` the engine drafts from the
    prompt, where the rollout stands (`engine.server_overrides`): by its own n-grams, or by our
    proposer for edited copies (`copy_proposer.py`). `auto` stands for one of the others until the
    engine is known (`choice.py`).
    """

    AUTO = "auto"
    PLAIN = "plain"
    VERIFY = "verify"
    NGRAM = "ngram"
    COPY = "copy"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"decoding {value!r} is unknown; choose from: {', '.join(cls)}")


@dataclass(frozen=True)
class VerifySettings:
    """Bounds and choices of one decoding; only `sampling` touches what comes out of it.

    Attributes:
        sampling: how the engine samples.
        max_tokens: longest output, end token included.
        end_ids: tokens that end an output.
        max_calls: engine calls for one output, the one that finishes it included; at least 3.
        free_tokens: length of the first free stretch after an edit.
        rejoin_tokens: how many tokens must be found in the draft to join it again.
    """

    sampling: Sampling
    max_tokens: int
    end_ids: frozenset[int]
    max_calls: int = 12
    free_tokens: int = 6
    rejoin_tokens: int = 2

    def __post_init__(self) -> None:
        for name, least in (
            ("max_tokens", 1),
            ("max_calls", 3),
            ("free_tokens", 1),
            ("rejoin_tokens", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"verify decoding: {name}={getattr(self, name)}; use at least {least}"
                )

    @property
    def calls_to_verify(self) -> int:
        """Calls that must be left to start a verification: it, perhaps a redraw, and the last."""
        return 2 if self.sampling.greedy else 3


@dataclass(frozen=True)
class Request:
    """What the engine is to do: continue prompt + `continuation` by up to `max_tokens` tokens.

    Attributes:
        continuation: tokens after the refiner's prompt.
        max_tokens: most tokens to generate; generation stops after an end token.
        scored: how many last tokens of `continuation` need a `TokenScore`; 0 for none.
        excluded: a token that must not be the generated one.
    """

    continuation: tuple[int, ...]
    max_tokens: int
    scored: int = 0
    excluded: int | None = None


@dataclass(frozen=True)
class Reply:
    """The generated tokens, end token included, and one score for each scored token."""

    token_ids: tuple[int, ...]
    scores: Sequence[TokenScore] = ()


class _Phase(StrEnum):
    VERIFY = "verify"
    REDRAW = "redraw"
    FREE = "free"
    DONE = "done"


@dataclass(frozen=True)
class State:
    """Where one decoding stands.

    Attributes:
        draft: the rollout up to its end token, which is left to the engine to draw.
        output: tokens decided so far.
        left_at: index of the draft token at which the draft was last left, or joined again.
        written: tokens written since then that were not taken from the draft.
        calls: replies taken in.
        guess: whether the token being replaced is taken for a substitution.
    """

    settings: VerifySettings
    draft: tuple[int, ...]
    output: tuple[int, ...] = ()
    left_at: int = 0
    written: int = 0
    calls: int = 0
    guess: bool = True
    phase: _Phase = _Phase.VERIFY

    @property
    def finished(self) -> bool:
        return self.phase is _Phase.DONE

    @property
    def expected(self) -> int:
        """Index of the draft token that comes next if tokens were replaced one for one."""
        return self.left_at + self.written

    @property
    def room(self) -> int:
        return self.settings.max_tokens - len(self.output)

    @property
    def calls_left(self) -> int:
        return self.settings.max_calls - self.calls


def begin(draft: Sequence[int], settings: VerifySettings) -> State:
    """Start decoding with a draft; what follows its first end token is ignored."""
    ends = (i for i, token in enumerate(draft) if token in settings.end_ids)
    return State(settings, tuple(draft[: next(ends, len(draft))]))


def next_request(state: State) -> Request | None:
    """What to ask the engine; None once the output is finished."""
    if state.finished:
        return None
    if state.phase is _Phase.REDRAW:
        return Request(state.output, 1, excluded=state.draft[state.expected])
    span = _span(state)
    if span:
        return Request(state.output + span, 1, scored=len(span))
    return Request(state.output, _free_length(state))


def advance(state: State, reply: Reply, accepts: Bernoulli) -> State:
    """Take the engine's reply to `next_request(state)` in.

    Raises ValueError for a reply that does not answer the request.
    """
    request = next_request(state)
    if request is None:
        raise ValueError("the output is finished; there is no request to reply to")
    _check(request, reply)
    state = replace(state, calls=state.calls + 1)
    if state.phase is _Phase.REDRAW:
        return _replaced(state, reply.token_ids)
    if request.scored:
        return _verified(state, request.continuation[-request.scored :], reply, accepts)
    return _continued(state, request, reply)


def _span(state: State) -> tuple[int, ...]:
    """The draft tokens to verify now; one place is left for the token that is drawn after them."""
    if state.phase is _Phase.FREE or state.calls_left < state.settings.calls_to_verify:
        return ()
    return state.draft[state.expected : state.expected + state.room - 1]


def _free_length(state: State) -> int:
    """All that is left, unless the draft may be joined again; doubles while it is not."""
    joinable = state.phase is _Phase.FREE and state.left_at < len(state.draft)
    if not joinable or state.calls_left <= state.settings.calls_to_verify:
        return state.room
    return min(max(state.settings.free_tokens, state.written), state.room)


def _check(request: Request, reply: Reply) -> None:
    if len(reply.scores) != request.scored:
        raise ValueError(f"{request.scored} scores were asked for, {len(reply.scores)} came")
    if not 1 <= len(reply.token_ids) <= request.max_tokens:
        raise ValueError(
            f"1 to {request.max_tokens} tokens were asked for, {len(reply.token_ids)} came"
        )
    if request.excluded is not None and request.excluded in reply.token_ids:
        raise ValueError(
            f"the engine drew token {request.excluded}, which it was told to exclude; does it "
            "honour logit_bias?"
        )


def _append(state: State, token_ids: Sequence[int], phase: _Phase) -> State:
    """Append tokens and go to `phase`, unless they end the output or fill it."""
    output = state.output + tuple(token_ids)
    ended = output[-1:] and output[-1] in state.settings.end_ids
    full = len(output) >= state.settings.max_tokens
    return replace(state, output=output, phase=_Phase.DONE if ended or full else phase)


def _verified(state: State, span: tuple[int, ...], reply: Reply, accepts: Bernoulli) -> State:
    """Accept the span up to the first token that is rejected."""
    for index, (token, score) in enumerate(zip(span, reply.scores, strict=True)):
        ruling = state.settings.sampling.rule(token, score, accepts)
        if ruling is not Ruling.ACCEPT:
            return _rejected(_accepted(state, span[:index]), ruling, score)
    state = replace(_accepted(state, span), written=len(reply.token_ids))
    return _append(state, reply.token_ids, _Phase.FREE)


def _accepted(state: State, token_ids: tuple[int, ...]) -> State:
    """Take tokens from the draft; if there are none, one for one was no good guess."""
    guess = bool(token_ids) or state.calls == 1
    if token_ids:
        state = replace(state, left_at=state.expected + len(token_ids), written=0)
    return _append(replace(state, guess=guess), token_ids, state.phase)


def _rejected(state: State, ruling: Ruling, score: TokenScore) -> State:
    if ruling is Ruling.REPLACE:
        return _replaced(state, score.token_ids[:1])
    return replace(state, phase=_Phase.REDRAW if ruling is Ruling.REDRAW else _Phase.FREE)


def _replaced(state: State, token_ids: Sequence[int]) -> State:
    """Another token stands for the draft's; verify what follows it, or write freely."""
    phase = _Phase.VERIFY if state.guess else _Phase.FREE
    return _append(replace(state, written=state.written + 1), token_ids, phase)


def _continued(state: State, request: Request, reply: Reply) -> State:
    """Free tokens; join the draft again if their last ones are found in it."""
    written = state.written + len(reply.token_ids)
    state = _append(replace(state, written=written), reply.token_ids, _Phase.FREE)
    if state.finished or len(reply.token_ids) < request.max_tokens:
        return replace(state, phase=_Phase.DONE)
    joint = _joint(state)
    if joint is None:
        return state
    return replace(state, left_at=joint, written=0, phase=_Phase.VERIFY)


def _joint(state: State) -> int | None:
    """The draft index that follows the output's last tokens, nearest to where it is expected."""
    count = state.settings.rejoin_tokens
    tail = state.output[-count:]
    ends = range(max(state.left_at, count), len(state.draft) + 1)
    found = [end for end in ends if state.draft[end - count : end] == tail]
    return min(found, key=lambda end: abs(end - state.expected), default=None)
