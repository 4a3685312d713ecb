"""SandboxFusion's requests and answers, as its documentation gives them, over this judge. Pure."""

import json
import math
from collections.abc import Mapping
from typing import Any

from reward.config import JudgeConfig
from reward.execution import Execution, RunRequest
from reward.sandbox.wire import End
from reward.verdict import JudgeResult, TestOutcome, Verdict

LANGUAGES = ("python",)
_MAX_TIMEOUT_S = 3600.0
_MAX_MEMORY_MIB = 1 << 20
_STATUS = {End.OK: "Finished", End.TIME: "TimeLimitExceeded"}


class BadRequest(ValueError):
    """A request that cannot be answered; the message says why."""


def run_request(body: Mapping[str, Any], config: JudgeConfig) -> RunRequest:
    """A `run_code` request. Raises BadRequest."""
    code, stdin = body.get("code"), body.get("stdin")
    if not isinstance(code, str):
        raise BadRequest("code is missing")
    if stdin is not None and not isinstance(stdin, str):
        raise BadRequest("stdin is not text")
    language = body.get("language", "python")
    if language not in LANGUAGES:
        raise BadRequest(f"language={language!r}: only python is judged")
    if body.get("files") or body.get("fetch_files"):
        raise BadRequest("files and fetch_files: programs have no files here")
    timeout_s = _number(body, "run_timeout", config.timeout_s)
    memory = _number(body, "memory_limit_MB", -1.0)
    return RunRequest(
        code=code,
        stdin=stdin or "",
        timeout_s=min(timeout_s, _MAX_TIMEOUT_S),
        memory_bytes=(
            int(min(memory, _MAX_MEMORY_MIB) * (1 << 20)) if memory > 0 else config.memory_bytes
        ),
    )


def run_answer(execution: Execution) -> dict[str, Any]:
    """The answer to `run_code`. A program that does not compile failed in its compile step."""
    end = execution.end
    if end in (End.BROKEN, End.PROBLEM):
        return _answer("SandboxError", execution.detail, None, None)
    result = {
        "status": _STATUS.get(end, "Finished"),
        "execution_time": execution.seconds,
        "return_code": None if end == End.TIME else int(end != End.OK),
        "stdout": execution.stdout,
        "stderr": execution.stderr + (f"{execution.detail}\n" if end != End.OK else ""),
    }
    if end == End.COMPILE:
        return _answer("Failed", "", result, None)
    return _answer("Success" if end == End.OK else "Failed", "", None, result)


def _answer(status: str, message: str, compiled: Any, ran: Any) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": compiled,
        "run_result": ran,
        "executor_pod_name": None,
        "files": {},
    }


def submission(body: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The completion of a `submit` request, and its problem as a record. Raises BadRequest.

    The tests come with the request, in `config.provided_data`: in APPS or HumanEval form, or as
    SandboxFusion's list `test` of {"input": {"stdin"}, "output": {"stdout"}}.
    """
    completion, config = body.get("completion"), body.get("config") or {}
    if not isinstance(completion, str):
        raise BadRequest("completion is missing")
    data = config.get("provided_data") if isinstance(config, Mapping) else None
    if not isinstance(data, Mapping):
        raise BadRequest("config.provided_data is missing: no data sets are held here")
    record = {"problem_id": str(body.get("id", "")), **data}
    if "input_output" not in record and isinstance(tests := _parsed(record.get("test")), list):
        record["input_output"] = _cases(tests)
    return completion, record


def submit_answer(body: Mapping[str, Any], code: str | None, result: JudgeResult) -> dict[str, Any]:
    """The answer to `submit`."""
    return {
        "id": body.get("id"),
        "accepted": result.verdict == Verdict.ACCEPTED,
        "extracted_code": code or "",
        "full_code": None,
        "test_code": None,
        "tests": [_test(outcome) for outcome in result.outcomes],
        "extracted_type": None if code is None else "fenced",
        "extra": {"verdict": str(result.verdict), "score": result.score, "detail": result.detail},
    }


def _test(outcome: TestOutcome) -> dict[str, Any]:
    return {
        "passed": outcome.verdict == Verdict.ACCEPTED,
        "exec_info": None,
        "test_info": {"verdict": str(outcome.verdict), "detail": outcome.detail},
    }


def _cases(tests: list[Any]) -> dict[str, Any]:
    try:
        return {
            "inputs": [str(test["input"]["stdin"]) for test in tests],
            "outputs": [str(test["output"]["stdout"]) for test in tests],
        }
    except (KeyError, TypeError) as error:
        reason = f"provided_data.test: each needs input.stdin and output.stdout ({error})"
        raise BadRequest(reason) from error


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _number(body: Mapping[str, Any], key: str, default: float) -> float:
    value = body.get(key)
    if value is None:
        return default
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if number == 0 or not math.isfinite(number):
        raise BadRequest(f"{key} is not a number above zero")
    return number if number > 0 else default
