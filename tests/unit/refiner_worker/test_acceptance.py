"""The rule for one draft token, and what it needs to know of the distribution."""

import math

import pytest

from refiner_worker.acceptance import Ruling, Sampling, TokenScore, tempered_probability


def score(**probabilities: float) -> TokenScore:
    """Tokens t1, t2, … with their probabilities at temperature 1."""
    ids = tuple(int(name.removeprefix("t")) for name in probabilities)
    return TokenScore(ids, tuple(map(math.log, probabilities.values())))


def heads(probability: float) -> bool:
    return True


def tails(probability: float) -> bool:
    return False


def test_greedy_keeps_the_arg_max_and_replaces_all_else() -> None:
    sampling = Sampling(0.0)
    assert sampling.listed == 1
    assert sampling.rule(5, score(t5=0.4), tails) is Ruling.ACCEPT
    assert sampling.rule(6, score(t5=0.4), heads) is Ruling.REPLACE


def test_at_temperature_one_only_the_draft_tokens_own_probability_is_needed() -> None:
    sampling = Sampling(1.0)
    assert sampling.listed == 0
    assert sampling.probability(5, score(t5=0.4)) == pytest.approx(0.4)
    assert sampling.rule(5, score(t5=0.4), heads) is Ruling.ACCEPT
    assert sampling.rule(5, score(t5=0.4), tails) is Ruling.REDRAW


def test_a_probability_rounded_over_one_is_one() -> None:
    assert Sampling(1.0).probability(5, TokenScore((5,), (1e-6,))) == 1.0


def test_half_the_temperature_squares_the_odds() -> None:
    # 0.6² / (0.6² + 0.3² + 0.1²) = 0.36 / 0.46
    sampling = Sampling(0.5, vocabulary_size=3)
    assert sampling.probability(1, score(t1=0.6, t2=0.3, t3=0.1)) == pytest.approx(0.36 / 0.46)


@pytest.mark.parametrize(
    ("temperature", "low", "high"),
    [
        # Listed squares 0.36 + 0.09; the tail of 0.1 in two tokens of at most 0.3 each: Σ q² is
        # between 2 · 0.05² = 0.005 (spread evenly) and 0.1 · 0.3 = 0.03.
        (0.5, 0.36 / 0.48, 0.36 / 0.455),
        # Listed roots; the tail's Σ √q is between 0.1 · 0.3^-0.5 and (0.1 · 2)^0.5.
        (
            2.0,
            0.6**0.5 / (0.6**0.5 + 0.3**0.5 + 0.2**0.5),
            0.6**0.5 / (0.6**0.5 + 0.3**0.5 + 0.1 / 0.3**0.5),
        ),
    ],
)
def test_an_unlisted_tail_bounds_the_probability(
    temperature: float, low: float, high: float
) -> None:
    got = tempered_probability(1, score(t1=0.6, t2=0.3), temperature, vocabulary_size=4)
    assert got == pytest.approx((low, high))


def test_what_the_bounds_leave_open_is_left_to_the_engine() -> None:
    sampling = Sampling(0.5, vocabulary_size=4, tolerance=0.01)
    assert sampling.rule(1, score(t1=0.6, t2=0.3), heads) is Ruling.DRAW
    assert sampling.rule(7, score(t1=0.999999, t2=0.000001), heads) is Ruling.DRAW


def test_by_default_the_engine_draws_unless_the_tail_is_negligible() -> None:
    sampling = Sampling(0.5, vocabulary_size=4)
    assert sampling.rule(1, score(t1=0.6, t2=0.3), heads) is Ruling.DRAW


def test_a_negligible_tail_does_not_matter() -> None:
    sampling = Sampling(0.5, vocabulary_size=100_000)
    sure = score(t1=0.9999, t2=0.0000999)
    assert sampling.probability(1, sure) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 1.0, "top_p": 0.9}, "top_p=0.9.*`plain`"),
        ({"temperature": 1.0, "top_k": 50}, "top_k=50"),
        ({"temperature": 0.001}, "use 0 .greedy. or at least 0.01"),
        ({"temperature": 0.7}, "size of the vocabulary"),
    ],
)
def test_what_cannot_be_exact_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)  # type: ignore[arg-type]


def test_greedy_ignores_what_cuts_off_the_tail() -> None:
    assert Sampling(0.0, top_p=0.5, top_k=3).greedy


def test_the_lowest_temperature_that_vllm_obeys_is_accepted() -> None:
    assert Sampling(0.01, vocabulary_size=3).probability(1, score(t1=0.6, t2=0.3, t3=0.1)) == 1.0


def test_an_almost_even_distribution_has_bounds_at_the_lowest_temperature() -> None:
    # Of 150,000 tokens 20 are listed; 1e-5 to the power of 100 is no number of 64 bits.
    even = TokenScore(tuple(range(20)), (math.log(1e-5),) * 20)
    low, high = tempered_probability(3, even, 0.01, vocabulary_size=150_000)
    # The tail of 1 - 20e-5 is in 99,980 tokens of 1e-5 each, or spread over 149,980 of 0.67e-5.
    assert low == pytest.approx(1 / (20 + (1 - 20e-5) / 1e-5))
    spread = 149_980 * ((1 - 20e-5) / 149_980 / 1e-5) ** 100
    assert high == pytest.approx(1 / (20 + spread))


def test_as_many_tokens_are_listed_as_there_are_up_to_the_engines_maximum() -> None:
    assert Sampling(0.5, vocabulary_size=3).listed == 3
    assert Sampling(0.5, vocabulary_size=1000).listed == 20


def test_the_bounds_may_differ_by_the_tolerance_itself_and_their_middle_is_taken() -> None:
    uneven = score(t1=0.6, t2=0.3)
    low, high = tempered_probability(1, uneven, 0.5, vocabulary_size=4)
    at_the_limit = Sampling(0.5, vocabulary_size=4, tolerance=high - low)
    assert at_the_limit.probability(1, uneven) == (low + high) / 2
    below = Sampling(0.5, vocabulary_size=4, tolerance=(high - low) * 0.999)
    assert below.probability(1, uneven) is None


def test_of_an_unlisted_token_nothing_is_known() -> None:
    assert tempered_probability(7, score(t1=0.6, t2=0.3), 0.5, vocabulary_size=4) == (0.0, 1.0)


def test_a_single_unlisted_token_is_bounded_by_the_least_of_all_that_are_listed() -> None:
    # Squares 0.25 + 0.09 + 0.01; the tail of 0.1 in one token: 0.01 of itself, 0.1 · 0.1 at most.
    exact = tempered_probability(1, score(t1=0.5, t2=0.3, t3=0.1), 0.5, vocabulary_size=4)
    assert list(exact) == pytest.approx([0.25 / 0.36] * 2)
    low, high = tempered_probability(1, score(t1=0.6, t2=0.3), 0.5, vocabulary_size=3)
    assert [low, high] == pytest.approx([0.36 / 0.48, 0.36 / 0.46])


def test_what_the_engine_takes_for_no_cut_is_accepted_and_the_smallest_cut_refused() -> None:
    assert Sampling(1.0, top_k=0).listed == 0
    with pytest.raises(ValueError, match="top_k=1 exact"):
        Sampling(1.0, top_k=1)
