"""One record of a benchmark to an `EvalProblem`, or the reason why not. Pure."""

import ast
import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recipe.evaluation.kinds import EvalProblem, Family, Message
from recipe.evaluation.sanitise import parse
from reward.problem import (
    MalformedProblem,
    Problem,
    parse_input_output,
    parse_problem,
    program_source,
)


def from_humaneval(record: Mapping[str, Any], place: str) -> EvalProblem:
    """HumanEval's form. Raises MalformedProblem with the reason."""
    prompt = _text(record, "prompt")
    if not prompt.strip():
        raise MalformedProblem("`prompt` is empty")
    parsed = parse_problem(record)
    return EvalProblem(
        problem_id=_id(record, place),
        family=Family.HUMANEVAL,
        judged=_bare(parsed),
        entry_point=parsed.entry,
        prompt=prompt,
        reference=_reference(record, parsed),
    )


def from_mbpp(record: Mapping[str, Any], place: str) -> EvalProblem:
    """MBPP in its own form, or converted to HumanEval's. Raises MalformedProblem."""
    if "test_list" in record:
        return _from_mbpp_columns(record, place)
    parsed = parse_problem(record)
    stub, test = _text(record, "prompt"), _text(record, "test")
    reference = _reference(record, parsed)
    return EvalProblem(
        problem_id=_id(record, place),
        family=Family.MBPP,
        judged=_bare(parsed),
        entry_point=called_first(test, reference) or parsed.entry,
        prompt=mbpp_prompt(_docstring(stub), _first_assertion(test)),
        reference=reference,
    )


def from_apps(record: Mapping[str, Any], place: str) -> EvalProblem:
    """A row that `recipe.data` prepared. Raises MalformedProblem with the reason."""
    messages, reward_model = record.get("prompt"), record.get("reward_model")
    extra = record.get("extra_info") or {}
    if not isinstance(messages, list) or not isinstance(reward_model, Mapping):
        raise MalformedProblem(
            "no prepared row (`prompt` messages, `reward_model`); run "
            "python -m recipe.data.prepare_apps"
        )
    own = extra.get("problem_id")
    problem_id = place if own is None else str(own)
    parsed = parse_input_output(reward_model.get("ground_truth") or "", problem_id)
    return EvalProblem(
        problem_id=problem_id,
        family=Family.APPS,
        judged=parsed,
        entry_point=parsed.entry,
        messages=tuple(Message(str(m["role"]), str(m["content"])) for m in messages),
        reference=str(extra.get("reference_solution") or ""),
        difficulty=str(extra.get("difficulty") or ""),
    )


def mbpp_prompt(description: str, assertion: str) -> str:
    """A docstring with the task and one test (after InCoder, arXiv 2204.05999)."""
    return f'"""\n{description}\n{assertion}\n"""\n'


def called_first(test: str, solution: str) -> str:
    """The function that `test` calls first among those `solution` defines; empty if there is none.

    MBPP's converted `entry_point` is the solution's first function, which may be a helper.
    """
    tree, own = parse(test), parse(solution)
    if tree is None or own is None:
        return ""
    defined = {node.name for node in own.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = [node.func for node in calls if isinstance(node.func, ast.Name)]
    named.sort(key=lambda name: (name.lineno, name.col_offset))
    return next((name.id for name in named if name.id in defined), "")


def _from_mbpp_columns(record: Mapping[str, Any], place: str) -> EvalProblem:
    tests = record["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        raise MalformedProblem("`test_list` is not a list of assertions")
    code = _text(record, "code").replace("\r\n", "\n")
    entry = called_first("\n".join(tests), code)
    if not entry:
        raise MalformedProblem("the first test calls no function that `code` defines")
    test = _text(record, "test") or "\n".join([*_setup(record), *tests])
    judged = parse_problem({"problem_id": _id(record, place), "entry_point": entry, "test": test})
    description = _text(record, "prompt") or _text(record, "text")
    if not description.strip():
        raise MalformedProblem("neither `prompt` nor `text` says what to do")
    return EvalProblem(
        problem_id=_id(record, place),
        family=Family.MBPP,
        judged=_bare(judged),
        entry_point=entry,
        prompt=mbpp_prompt(description, tests[0]),
        reference=code,
    )


def _setup(record: Mapping[str, Any]) -> list[str]:
    """What the assertions need before them: `test_imports` (a list) or `test_setup_code`."""
    imports = record.get("test_imports") or []
    return [*map(str, imports), _text(record, "test_setup_code")]


def _bare(problem: Problem) -> Problem:
    """The tests alone: a protocol decides what goes before a completion, not the judge."""
    return replace(problem, prefix="", preface="")


def _reference(record: Mapping[str, Any], parsed: Problem) -> str:
    solution = _text(record, "canonical_solution")
    return program_source(parsed, solution) if solution.strip() else ""


def _docstring(stub: str) -> str:
    """The docstring of the last function in `stub`."""
    tree = parse(stub)
    last = tree.body[-1] if tree and tree.body else None
    text = ast.get_docstring(last) if isinstance(last, ast.FunctionDef) else None
    if not text:
        raise MalformedProblem("`prompt` does not end in a function with a docstring")
    return inspect.cleandoc(text)


def _first_assertion(test: str) -> str:
    tree = parse(test)
    asserts = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)] if tree else []
    if not asserts:
        raise MalformedProblem("`test` has no assertion")
    first = min(asserts, key=lambda node: node.lineno)
    return ast.get_source_segment(test, first) or ast.unparse(first)


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedProblem(f"`{key}` is a {type(value).__name__}, not text")
    return value


def _id(record: Mapping[str, Any], place: str) -> str:
    own = record.get("task_id", record.get("problem_id"))
    return place if own is None else str(own)
