"""What every reward function must hold, checked on responses of all kinds.

In a test of your own: `assert reward_violations("path/to/mine.py", ["rows=train.parquet"]) == []`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recipe.online_refiner.scores import SCORE_KEY
from reward.traits import RewardTraits, load_reward, traits_of

FUNCTION = "compute_score"
ROWS = "rows"
MAX_ROWS = 8
RESPONSES = ("", "no answer at all", "```python\n", "ä🙂\x00\ud800", "word " * 2000)
"""Besides a row's own reference solution: nothing, prose, a broken fence, odd letters, length."""
BARE_ROW: dict[str, Any] = {
    "data_source": "contract",
    "reward_model": {"ground_truth": ""},
    "extra_info": {"index": 0},
}


def reward_violations(path: str, settings: Sequence[str] = ()) -> list[str]:
    """What is wrong with the reward function, a sentence each; empty if it keeps the contract.

    Args:
        path: `pkg://dotted.name` or a Python file, with a function `compute_score`.
        settings: `key=value` of its `reward_kwargs`; `rows=FILE` names a parquet file of prepared
            rows, without which it is called with an empty ground truth.
    """
    given = {key: yaml.safe_load(value) for key, _, value in (s.partition("=") for s in settings)}
    file = given.pop(ROWS, None)
    try:
        rows = [BARE_ROW] if file is None else pq.read_table(file).slice(0, MAX_ROWS).to_pylist()
    except (OSError, pa.ArrowException) as error:
        fix = "name a parquet file of prepared rows"
        return [f"{ROWS}={file}: it could not be read ({error}). Fix: {fix}"]
    try:
        function = getattr(load_reward(path), FUNCTION)
        traits = traits_of(path)
    except (ImportError, OSError, AttributeError, TypeError) as error:
        return [f"{path} has no function {FUNCTION} that can be loaded: {error}"]
    if traits.failing_test_setting:
        given[traits.failing_test_setting] = True
    found = list(traits.inspect(given).faults) if traits.inspect else []
    for row in rows:
        found += asyncio.run(_of_row(function, traits, row, given))
    return list(dict.fromkeys(found))


async def _of_row(
    function: Callable[..., Any], traits: RewardTraits, row: Mapping[str, Any], given: Any
) -> list[str]:
    reference = (row["extra_info"] or {}).get("reference_solution")
    responses = [*RESPONSES, *([f"```python\n{reference}\n```"] if reference else [])]
    try:
        results = await asyncio.gather(*(_call(function, row, one, given) for one in responses))
        again = await _call(function, row, responses[1], given)
    except Exception as error:  # whatever a user's function raises is a violation, not a crash
        return [f"it raised on a response: {type(error).__name__}: {error}"]
    found = [violation for result in results for violation in _of_result(result, traits)]
    if not found and again[SCORE_KEY] != results[1][SCORE_KEY]:
        found.append(f"one response got two scores: {results[1][SCORE_KEY]}, {again[SCORE_KEY]}")
    keys = {frozenset(result) for result in results if isinstance(result, Mapping)}
    if len(keys) > 1:
        differing = sorted(frozenset.union(*keys) - frozenset.intersection(*keys))
        found.append(f"verl puts results into columns, but some lack {', '.join(differing)}")
    return found


async def _call(
    function: Callable[..., Any], row: Mapping[str, Any], response: str, given: Mapping[str, Any]
) -> Any:
    arguments = {
        "data_source": row["data_source"],
        "solution_str": response,
        "ground_truth": row["reward_model"]["ground_truth"],
        "extra_info": row["extra_info"],
        **given,
    }
    if inspect.iscoroutinefunction(function):
        result = await function(**arguments)
    else:
        result = await asyncio.to_thread(function, **arguments)
    return {SCORE_KEY: result} if isinstance(result, int | float) else result


def _of_result(result: Any, traits: RewardTraits) -> Iterator[str]:
    if not isinstance(result, Mapping):
        yield (f"it returned {result!r}; return the unshaped reward, or a dict with it as `score`")
        return
    score = result.get(SCORE_KEY)
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        yield f"`score` is {score!r}, and must be a finite number: the reward before any shaping"
    if result.get("judge_failed", 0) not in (0, 1):
        yield f"`judge_failed` is {result['judge_failed']!r}, and must be 0 or 1"
    if traits.tells_verdict and not isinstance(result.get("verdict"), str):
        yield "TRAITS say that it tells a verdict, and a result has no text `verdict`"
    if traits.failing_test_setting and not isinstance(result.get("failing_test"), str):
        yield (
            f"with {traits.failing_test_setting}=True every result has a text `failing_test`, "
            "empty if no test fails"
        )
    for key in traits.numbers:
        if not isinstance(result.get(key), int | float):
            yield f"TRAITS say that results have the number {key}, and one has {result.get(key)!r}"
    for key, value in result.items():
        if not isinstance(value, str | int | float):
            yield f"{key}={value!r}: verl logs plain numbers and texts alone"
