"""Verify-then-resume decoding: exact in distribution, bounded in calls, cheap on copies."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product

import pytest
from scripted_engine import Distribution, softmax

from refiner_worker.acceptance import Sampling, TokenScore
from refiner_worker.decoding import Reply, Request, VerifySettings, advance, begin, next_request

END = 0
GREEDY = Sampling(temperature=0.0)
SAMPLED = Sampling(temperature=1.0)
Model = Callable[[tuple[int, ...]], Distribution]
Draw = Callable[[Distribution], int]


def settings(sampling: Sampling = GREEDY, **changes: int) -> VerifySettings:
    choices = {"max_tokens": 12, "free_tokens": 2, "rejoin_tokens": 2} | changes
    return VerifySettings(sampling=sampling, end_ids=frozenset({END}), **choices)


def tempered(distribution: Distribution, temperature: float) -> Distribution:
    return softmax({token: math.log(p) for token, p in distribution.items()}, temperature)


class Run:
    """One decoding of one draft; `draw` picks the engine's tokens and throws the coins."""

    def __init__(self, model: Model, draft: Sequence[int], how: VerifySettings, draw: Draw) -> None:
        self._model, self._sampling, self._draw = model, how.sampling, draw
        self.requests: list[Request] = []
        state = begin(draft, how)
        while (request := next_request(state)) is not None:
            self.requests.append(request)
            state = advance(state, self._reply(request), self._coin)
        self.output = state.output

    def _coin(self, probability: float) -> bool:
        return bool(self._draw({1: probability, 0: 1 - probability}))

    def _reply(self, request: Request) -> Reply:
        tokens: list[int] = []
        while len(tokens) < request.max_tokens and END not in tokens:
            tokens.append(self._next(request.continuation + tuple(tokens), request.excluded))
        start = len(request.continuation) - request.scored
        positions = range(start, len(request.continuation))
        return Reply(tuple(tokens), [self._score(request.continuation, i) for i in positions])

    def _next(self, context: tuple[int, ...], excluded: int | None) -> int:
        allowed = {t: p for t, p in self._model(context).items() if t != excluded}
        if self._sampling.greedy:
            return max(allowed, key=lambda token: allowed[token])
        return self._draw(tempered(allowed, self._sampling.temperature))

    def _score(self, tokens: tuple[int, ...], position: int) -> TokenScore:
        model = self._model(tokens[:position])
        best = sorted(model, key=lambda token: -model[token])[: self._sampling.listed]
        listed = best or [tokens[position]]
        return TokenScore(tuple(listed), tuple(math.log(model[token]) for token in listed))


def never(distribution: Distribution) -> int:
    raise AssertionError("greedy decoding draws nothing")


def scripted(answer: Sequence[int]) -> Model:
    """A model whose greedy output is `answer`, whatever stands before the next token."""

    def model(context: tuple[int, ...]) -> Distribution:
        wanted = answer[len(context)] if len(context) < len(answer) else END
        return {token: 0.91 if token == wanted else 0.01 for token in range(10)}

    return model


def hashed(seed: int, vocabulary: int) -> Model:
    """A model without structure: another distribution after every context."""

    @cache
    def model(context: tuple[int, ...]) -> Distribution:
        source = random.Random(f"{seed}/{context}")
        weights = [source.random() + 0.05 for _ in range(vocabulary)]
        return {token: weight / sum(weights) for token, weight in enumerate(weights)}

    return model


def plain(model: Model, limit: int) -> tuple[int, ...]:
    output: tuple[int, ...] = ()
    while len(output) < limit and END not in output:
        distribution = model(output)
        output += (max(distribution, key=lambda token: distribution[token]),)
    return output


def test_a_verbatim_answer_costs_one_call_and_one_generated_token() -> None:
    run = Run(scripted([1, 2, 3, END]), [1, 2, 3, END], settings(), never)
    assert run.output == (1, 2, 3, END)
    assert run.requests == [Request((1, 2, 3), max_tokens=1, scored=3)]


def test_one_substituted_token_costs_two_calls() -> None:
    run = Run(scripted([1, 2, 9, 4, 5, END]), [1, 2, 3, 4, 5, END], settings(), never)
    assert run.output == (1, 2, 9, 4, 5, END)
    assert run.requests == [
        Request((1, 2, 3, 4, 5), max_tokens=1, scored=5),
        Request((1, 2, 9, 4, 5), max_tokens=1, scored=2),
    ]


def test_an_insertion_is_written_freely_and_the_draft_joined_again() -> None:
    run = Run(scripted([1, 2, 9, 3, 4, 5, 6, END]), [1, 2, 3, 4, 5, 6, END], settings(), never)
    assert run.output == (1, 2, 9, 3, 4, 5, 6, END)
    assert run.requests == [
        Request((1, 2, 3, 4, 5, 6), max_tokens=1, scored=6),
        Request((1, 2, 9, 4, 5, 6), max_tokens=1, scored=3),  # 9 stood for 3: it did not
        Request((1, 2, 9, 3), max_tokens=2),  # draws 4, 5, found in the draft
        Request((1, 2, 9, 3, 4, 5, 6), max_tokens=1, scored=1),
    ]


def test_a_deletion_joins_the_draft_at_the_nearest_place() -> None:
    draft = [4, 5, 1, 7, 4, 5, 2, 4, 5, 3, END]
    answer = [4, 5, 1, 4, 5, 2, 4, 5, 3, END]
    run = Run(scripted(answer), draft, settings(), never)
    assert run.output == tuple(answer)
    # 4 for 7, then 5 where the draft has 4; free tokens 2, 4 are found once, before draft[8].
    assert [r.scored for r in run.requests] == [10, 6, 0, 2]


def test_an_end_token_instead_of_a_draft_token_ends_the_output() -> None:
    run = Run(scripted([1, 2, END]), [1, 2, 3, 4, END], settings(), never)
    assert (run.output, len(run.requests)) == ((1, 2, END), 1)


def test_an_answer_that_goes_on_after_the_drafts_end_is_written_in_one_request() -> None:
    run = Run(scripted([1, 2, 3, 4, 5, END]), [1, 2, END], settings(), never)
    assert run.output == (1, 2, 3, 4, 5, END)
    assert run.requests[1:] == [Request((1, 2, 3), max_tokens=9)]


def test_what_follows_the_first_end_token_of_a_draft_is_ignored() -> None:
    run = Run(scripted([1, END]), [1, END, 2, 2], settings(), never)
    assert run.requests == [Request((1,), max_tokens=1, scored=1)]


@pytest.mark.parametrize("draft", [[], [END]])
def test_an_empty_draft_is_plain_decoding(draft: list[int]) -> None:
    run = Run(scripted([1, 2, END]), draft, settings(), never)
    assert (run.output, run.requests) == ((1, 2, END), [Request((), max_tokens=12)])


def test_a_draft_over_the_limit_is_cut_as_plain_decoding_is() -> None:
    answer = [1 + i % 9 for i in range(30)]
    run = Run(scripted(answer), answer, settings(max_tokens=12), never)
    assert run.output == tuple(answer[:12])
    assert run.requests == [Request(tuple(answer[:11]), max_tokens=1, scored=11)]


def test_an_engine_that_stops_early_for_reasons_of_its_own_ends_the_output() -> None:
    state = begin([], settings())
    state = advance(state, Reply((1, 2)), lambda p: True)
    assert (state.finished, state.output) == (True, (1, 2))


def edited(answer: Sequence[int], edits: int, source: random.Random) -> list[int]:
    """An answer with random insertions, deletions and substitutions."""
    draft = list(answer)
    for _ in range(edits):
        at = source.randrange(len(draft) + 1)
        draft[at : at + source.randrange(3)] = [
            source.randrange(6) for _ in range(source.randrange(3))
        ]
    return draft


@pytest.mark.parametrize("seed", range(300))
def test_greedy_output_is_that_of_plain_decoding_within_the_calls(seed: int) -> None:
    source = random.Random(seed)
    model = hashed(seed, vocabulary=source.choice([3, 6, 30]))
    how = settings(
        max_tokens=source.randint(1, 40),
        max_calls=source.randint(3, 12),
        free_tokens=source.randint(1, 6),
        rejoin_tokens=source.randint(1, 3),
    )
    expected = plain(model, how.max_tokens)
    run = Run(model, edited(expected, source.randint(0, 5), source), how, never)
    assert run.output == expected
    assert len(run.requests) <= how.max_calls


class Path:
    """One course of random events, replayed as far as it is given, then always the first."""

    def __init__(self, given: tuple[int, ...]) -> None:
        self._given = given
        self.taken: list[int] = []
        self.options: list[int] = []
        self.probability = 1.0

    def draw(self, distribution: Distribution) -> int:
        events = [(token, p) for token, p in distribution.items() if p > 0]
        step = len(self.taken)
        index = self._given[step] if step < len(self._given) else 0
        self.taken.append(index)
        self.options.append(len(events))
        self.probability *= events[index][1]
        return events[index][0]


def courses(play: Callable[[Draw], tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], float]]:
    """Result and probability of every course of random events that `play` can take."""
    pending: list[tuple[int, ...]] = [()]
    while pending:
        given = pending.pop()
        path = Path(given)
        yield play(path.draw), path.probability
        for step in range(len(given), len(path.taken)):
            pending += [(*path.taken[:step], other) for other in range(1, path.options[step])]


def distribution_of(play: Callable[[Draw], tuple[int, ...]]) -> dict[tuple[int, ...], float]:
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for output, probability in courses(play):
        total[output] += probability
    return dict(total)


def plain_distribution(
    model: Model, limit: int, temperature: float
) -> dict[tuple[int, ...], float]:
    def play(draw: Draw) -> tuple[int, ...]:
        output: tuple[int, ...] = ()
        while len(output) < limit and END not in output:
            output += (draw(tempered(model(output), temperature)),)
        return output

    return distribution_of(play)


def output_of(
    model: Model, draft: Sequence[int], how: VerifySettings, draw: Draw
) -> tuple[int, ...]:
    return Run(model, draft, how, draw).output


LIMIT = 4
DRAFTS = [draft for length in range(LIMIT + 1) for draft in product((1, 2), repeat=length)]
FEW_DRAFTS = [(1, 2, 1), (2, 1, 1), (1, 1, 2, 2, 1)]


def assert_exact(
    sampling: Sampling, tolerance: float, drafts: Sequence[tuple[int, ...]] = DRAFTS, **changes: int
) -> None:
    model = hashed(7, vocabulary=3)
    how = settings(sampling, max_tokens=LIMIT, **changes)
    expected = plain_distribution(model, LIMIT, sampling.temperature)
    assert sum(expected.values()) == pytest.approx(1)
    for draft in drafts:
        got = distribution_of(partial(output_of, model, draft, how))
        assert got.keys() == expected.keys(), draft
        assert got == pytest.approx(expected, abs=tolerance), draft


@pytest.mark.parametrize(("calls", "rejoin"), [(3, 1), (4, 2), (12, 1), (12, 2)])
def test_every_outputs_probability_is_that_of_plain_sampling(calls: int, rejoin: int) -> None:
    """All random events enumerated, for all 31 drafts of up to 4 tokens over two letters."""
    assert_exact(SAMPLED, 1e-12, max_calls=calls, rejoin_tokens=rejoin, free_tokens=1)


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_it_is_exact_at_any_temperature_where_all_tokens_are_listed(temperature: float) -> None:
    sampling = Sampling(temperature, vocabulary_size=3)
    assert_exact(sampling, 1e-12, FEW_DRAFTS, free_tokens=1, rejoin_tokens=1)


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_an_unlisted_tail_costs_no_more_than_the_tolerance_a_token(temperature: float) -> None:
    sampling = Sampling(temperature, vocabulary_size=1000, tolerance=1e-6)
    assert_exact(sampling, LIMIT * 1e-6, FEW_DRAFTS, free_tokens=1, rejoin_tokens=1)


def test_a_likely_draft_token_of_another_draft_is_not_taken_for_sure() -> None:
    """p(1) = 0.91: the draft is kept in 91 of 100 courses, not in all."""
    got = distribution_of(
        lambda draw: Run(scripted([1]), [1], settings(SAMPLED, max_tokens=1), draw).output
    )
    assert got[(1,)] == pytest.approx(0.91)


def test_at_least_three_calls_are_needed() -> None:
    with pytest.raises(ValueError, match="max_calls=2; use at least 3"):
        settings(max_calls=2)


REQUEST_SCORES = [TokenScore((1,), (-0.1,)), TokenScore((9,), (-0.1,))]


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply((END,)), "2 scores were asked for, 0 came"),
        (Reply((), REQUEST_SCORES), "1 to 1 tokens were asked for, 0 came"),
        (Reply((1, 2), REQUEST_SCORES), "1 to 1 tokens were asked for, 2 came"),
    ],
)
def test_a_reply_that_is_none_is_refused(reply: Reply, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        advance(begin([1, 2], settings()), reply, lambda p: True)


def test_an_engine_that_ignores_the_exclusion_is_refused() -> None:
    scores = [TokenScore((1,), (-0.1,)), TokenScore((2,), (-3.0,))]
    state = advance(begin([1, 2], settings(SAMPLED)), Reply((END,), scores), lambda p: p > 0.5)
    assert next_request(state) == Request((1,), 1, excluded=2)
    with pytest.raises(ValueError, match="logit_bias"):
        advance(state, Reply((2,)), lambda p: True)


def test_nothing_is_asked_after_the_end() -> None:
    state = advance(begin([], settings()), Reply((END,)), lambda p: True)
    assert next_request(state) is None
    with pytest.raises(ValueError, match="finished"):
        advance(state, Reply((1,)), lambda p: True)
