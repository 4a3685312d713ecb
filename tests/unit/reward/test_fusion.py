"""SandboxFusion's requests as data: what is meant, and what is refused."""

import json
from typing import Any

import pytest

from reward.config import JudgeConfig
from reward.fusion import BadRequest, run_request

CONFIG = JudgeConfig(timeout_s=3.0, memory_bytes=7 << 20)


def _asked(**fields: Any) -> Any:
    body = json.loads(json.dumps({"code": "print(1)", **fields}))
    return run_request(body, CONFIG)


def test_limits_that_are_not_given_are_the_judges() -> None:
    for fields in ({}, {"run_timeout": None, "memory_limit_MB": -1}, {"memory_limit_MB": None}):
        run = _asked(**fields)
        assert (run.timeout_s, run.memory_bytes) == (3.0, 7 << 20)


@pytest.mark.parametrize(
    ("fields", "timeout_s", "memory_bytes"),
    [
        ({"run_timeout": 0.5, "memory_limit_MB": 64}, 0.5, 64 << 20),
        ({"run_timeout": 1e300, "memory_limit_MB": 1e300}, 3600.0, 1 << 40),
        ({"run_timeout": 10**40, "memory_limit_MB": 10**40}, 3600.0, 1 << 40),
    ],
)
def test_limits_are_bounded(fields: dict[str, Any], timeout_s: float, memory_bytes: int) -> None:
    run = _asked(**fields)
    assert (run.timeout_s, run.memory_bytes) == (timeout_s, memory_bytes)


@pytest.mark.parametrize("key", ["run_timeout", "memory_limit_MB"])
@pytest.mark.parametrize(
    "value", [0, True, "1", [], {}, float("inf"), float("-inf"), float("nan"), 10**400]
)
def test_what_is_no_number_above_zero_is_refused(key: str, value: Any) -> None:
    with pytest.raises(BadRequest, match=f"{key} is not a number above zero"):
        _asked(**{key: value})
