"""verl's `compute_score` for code problems in APPS form.

reward.custom_reward_function.path=pkg://reward.apps
reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.timeout_s=4.0      # any key of JudgeConfig
"""

import asyncio
import functools
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reward import jsontext
from reward.config import JudgeConfig
from reward.extract import Extract, extract
from reward.inspection import inspect_judge
from reward.judge import Judge
from reward.problem import MalformedProblem, Problem, parse_input_output
from reward.quality import without_examples
from reward.traits import RewardTraits
from reward.verdict import JudgeResult, Verdict

if TYPE_CHECKING:
    from reward.pool import RayPool

# verl adds these where a reward model is served beside the function.
_VERL_KEYS = frozenset({"reward_router_address", "reward_model_tokenizer"})
_PARSED_PROBLEMS = 4096
SHOWN_CHARACTERS = 300
"""Of each part of a failing test that is shown."""


def row_fault(row: Mapping[str, Any]) -> str:
    """Why a row's answers cannot be judged; empty if they can."""
    truth = (row.get("reward_model") or {}).get("ground_truth")
    if not isinstance(truth, str):
        return "reward_model.ground_truth is no text"
    try:
        parse_input_output(truth)
    except MalformedProblem as error:
        return f"reward_model.ground_truth: {error}"
    return ""


TRAITS = RewardTraits(
    tells_verdict=True,
    failing_test_setting="show_failing_test",
    asks_reward_model=False,
    task="code",
    numbers=("passed", "total", "seconds", "level", "judge_failed", "solved"),
    best_score=lambda settings: float(settings.get("accepted", JudgeConfig.accepted)),
    inspect=inspect_judge,
    row_fault=row_fault,
)

_lock = threading.Lock()
_judges: dict[JudgeConfig, Judge] = {}
_pools: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[JudgeConfig, RayPool]]"
_pools = weakref.WeakKeyDictionary()


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Judge one response.

    Args:
        data_source: name of the data set; every one is judged alike.
        solution_str: the whole decoded response.
        ground_truth: APPS's `input_output` as JSON.
        extra_info: `problem_id` names the problem in log lines and in the queue; `question` is the
            text whose examples `drop_prompt_examples` leaves out.
        settings: keys of `JudgeConfig`.

    Returns:
        `score` (the tier), `verdict`, `passed`, `total`, `seconds`, `level`, `solved` (1.0 if all
        tests pass, so that its mean over a validation is pass@1), and `judge_failed`: 1.0 if the
        judge or the problem, not the response, was at fault. The score is 0.0 then and must not be
        trained on. With `show_failing_test` also `failing_test`, see that function.

    Raises:
        JudgeConfigError: unknown or impossible settings.
        IsolationError: less isolation than `min_level`.
    """
    config = JudgeConfig.from_mapping(
        {key: value for key, value in settings.items() if key not in _VERL_KEYS}
    )
    extra_info = extra_info or {}
    problem_id = str(extra_info.get("problem_id", ""))
    shown = str(extra_info.get("question", "")) if config.drop_prompt_examples else ""
    try:
        problem = _problem(ground_truth, problem_id, shown, config.min_tests)
    except MalformedProblem as error:
        # Every result has the same keys: verl puts the extras of a batch into columns.
        return _malformed(str(error)) | ({"failing_test": ""} if config.show_failing_test else {})
    code = extract(solution_str, Extract(config.extract))
    if _uses_ray(config):
        result = await _ray_pool(config).judge(problem, code)
    else:
        judge = await asyncio.to_thread(_judge, config)
        result = await judge.judge_async(problem, code)
    if config.show_failing_test:
        return as_dict(result) | {"failing_test": failing_test(problem, result)}
    return as_dict(result)


def as_dict(result: JudgeResult) -> dict[str, Any]:
    """A result in the flat form that verl logs."""
    return {
        "score": result.score,
        "verdict": str(result.verdict),
        "passed": result.passed,
        "total": result.total,
        "seconds": result.seconds,
        "level": result.level,
        "judge_failed": float(result.judge_failed),
        "solved": float(result.verdict == Verdict.ACCEPTED),
    }


def failing_test(problem: Problem, result: JudgeResult) -> str:
    """The first test that the program does not pass, as text for a reader.

    Its verdict, what the program is given, and what it should answer, each cut to SHOWN_CHARACTERS.
    Empty if all tests are passed, or none could be run.
    """
    for test, outcome in zip(problem.tests, result.outcomes, strict=False):
        if outcome.verdict in (Verdict.COMPILE_ERROR, Verdict.INTERNAL_ERROR):
            return ""
        if outcome.verdict == Verdict.ACCEPTED:
            continue
        given = test.given.decode("utf-8", "replace")
        parts = [f"verdict: {outcome.verdict}".replace("_", " "), f"input:\n{_cut(given)}"]
        if test.expected is not None:
            expected = test.expected
            text = expected if isinstance(expected, str) else jsontext.dumps(expected)
            parts.append(f"expected:\n{_cut(text)}")
        return "\n".join(parts)
    return ""


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"


def _malformed(reason: str) -> dict[str, Any]:
    detail = f"malformed problem: {reason}"
    return as_dict(JudgeResult(Verdict.INTERNAL_ERROR, 0, 0, 0.0, 0, 0.0, detail))


@functools.lru_cache(maxsize=_PARSED_PROBLEMS)
def _problem(ground_truth: str, problem_id: str, shown: str, min_tests: int) -> Problem:
    problem = parse_input_output(ground_truth, problem_id)
    return without_examples(problem, shown, min_tests) if shown else problem


def _judge(config: JudgeConfig) -> Judge:
    """This process's judge for `config`, started by the first call."""
    with _lock:
        if config not in _judges:
            _judges[config] = Judge(config)
        return _judges[config]


def _uses_ray(config: JudgeConfig) -> bool:
    if config.pool != "auto":
        return config.pool == "ray"
    ray = sys.modules.get("ray")  # whoever runs under Ray has imported it
    return ray is not None and ray.is_initialized()


def _ray_pool(config: JudgeConfig) -> "RayPool":
    """This event loop's view of the node's judges."""
    from reward.pool import RayPool  # Ray is no dependency of the judge itself

    loop = asyncio.get_running_loop()
    pools = _pools.setdefault(loop, {})
    if config not in pools:
        pools[config] = RayPool(config)
    return pools[config]
