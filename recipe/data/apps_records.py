"""One APPS problem, from raw record to a row of verl's dataset, or the reason why not. Pure.

A raw record has the columns of the Hugging Face edition: `problem_id`, `question`, `input_output`,
`solutions` (both JSON, as text or already parsed), `difficulty`, `url`, `starter_code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from recipe.data.rows import Malformed, is_encodable, readable_name
from reward import jsontext

Record = Mapping[str, Any]
Row = dict[str, Any]

_ENDING = (
    "Think it through if you need to, then give the whole program in exactly one ```python block."
)
_STANDARD_INPUT = "Write a Python 3 program that reads from standard input and prints the answer."
_CALL_BASED = "Write Python 3 code that defines `{fn_name}`; it will be called, so read no input."
_STARTER = "Begin with this code:\n```python\n{starter_code}\n```"


class PromptStyle(Enum):
    """What the policy is shown."""

    APPS = "apps"  # question, starter code, how input comes, and the form of the answer
    BARE = "bare"  # question and starter code only, for a model that was taught the rest


@dataclass(frozen=True)
class Limits:
    """Beyond these a record is quarantined. Sizes are in characters of text."""

    max_question_chars: int = 20_000
    max_case_chars: int = 1_000_000
    max_suite_chars: int = 20_000_000
    max_solution_chars: int = 50_000


@dataclass(frozen=True)
class Suite:
    """The tests of a problem: standard input and output, or arguments and result of `fn_name`.

    `checker` is the source of a function that says which outputs are right, where many are.
    """

    inputs: list[Any]
    outputs: list[Any]
    fn_name: str | None = None
    checker: str | None = None

    def as_ground_truth(self) -> str:
        fields: dict[str, Any] = {"inputs": self.inputs, "outputs": self.outputs}
        if self.fn_name is not None:
            fields["fn_name"] = self.fn_name
        if self.checker is not None:
            fields["checker"] = self.checker
        return jsontext.dumps(fields)


def to_row(
    record: Record,
    *,
    data_source: str,
    split: str,
    index: int,
    style: PromptStyle,
    limits: Limits,
) -> Row:
    """The dataset row of one record. Raises Malformed with the reason."""
    question = _text(record, "question").strip()
    if not question:
        raise Malformed("the question is empty")
    if len(question) > limits.max_question_chars:
        raise Malformed(
            f"the question has {len(question)} characters, over {limits.max_question_chars}"
        )
    suite = parse_suite(record.get("input_output"), limits)
    suite = replace(suite, checker=_text(record, "checker") or suite.checker)
    starter_code = _text(record, "starter_code").strip("\n")
    ground_truth = suite.as_ground_truth()
    return {
        "data_source": data_source,
        "prompt": [
            {"role": "user", "content": render_prompt(question, starter_code, suite, style)}
        ],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            "index": index,
            "problem_id": problem_id(record, index),
            "split": split,
            "difficulty": _text(record, "difficulty"),
            "starter_code": starter_code,
            "reference_solution": next(
                iter(reference_solutions(record.get("solutions"), limits)), ""
            ),
        },
    }


def problem_id(record: Record, index: int) -> str:
    """The record's own identity, or its place in the source if it has none."""
    own = record.get("problem_id", record.get("id"))
    return str(index) if own is None or own == "" else readable_name(own)


def render_prompt(question: str, starter_code: str, suite: Suite, style: PromptStyle) -> str:
    """The user message for one problem."""
    if style is PromptStyle.BARE:
        return bare_prompt(question, starter_code)
    parts = [question]
    if starter_code:
        parts.append(_STARTER.format(starter_code=starter_code))
    if suite.fn_name is None:
        parts.append(_STANDARD_INPUT)
    else:
        parts.append(_CALL_BASED.format(fn_name=suite.fn_name))
    return "\n\n".join([*parts, _ENDING])


def bare_prompt(question: str, starter_code: str) -> str:
    """Question and starter code, nothing else."""
    return f"{question}\n{starter_code}" if starter_code else question


def parse_suite(value: Any, limits: Limits) -> Suite:
    """Tests from the `input_output` column. Raises Malformed with the reason."""
    fields = _parsed(value, "input_output")
    if not isinstance(fields, Mapping):
        raise Malformed(f"input_output is {_kind(fields)}, not an object")
    inputs, outputs = (_list(fields, key) for key in ("inputs", "outputs"))
    if len(inputs) != len(outputs):
        raise Malformed(f"input_output has {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise Malformed("input_output has no tests")
    fn_name = fields.get("fn_name")
    if fn_name is not None and not (isinstance(fn_name, str) and fn_name.isidentifier()):
        raise Malformed(f"fn_name {fn_name!r:.80} is not a Python name")
    _check_sizes(inputs, outputs, limits)
    for number, (given, expected) in enumerate(zip(inputs, outputs, strict=True)):
        _check_case(number, given, expected, call_based=fn_name is not None)
    return Suite(inputs, outputs, fn_name, _text(fields, "checker") or None)


def reference_solutions(value: Any, limits: Limits) -> list[str]:
    """The non-empty solutions within the limits, each once (many test problems have none)."""
    try:
        solutions = _parsed(value, "solutions") if value else []
    except Malformed:
        return []
    if not isinstance(solutions, list):
        return []
    written = (s for s in solutions if isinstance(s, str) and s.strip() and is_encodable(s))
    return list(dict.fromkeys(s for s in written if len(s) <= limits.max_solution_chars))


def _check_case(number: int, given: Any, expected: Any, *, call_based: bool) -> None:
    """Call-based inputs are argument lists; standard input and output are text or lines."""
    if call_based:
        if not isinstance(given, list):
            raise Malformed(f"input {number} is {_kind(given)}, not a list of arguments")
        return
    for name, value in (("input", given), ("output", expected)):
        lines = value if isinstance(value, list) else [value]
        if not all(isinstance(line, str) for line in lines):
            raise Malformed(f"{name} {number} is {_kind(value)}, not text or a list of lines")


def _check_sizes(inputs: list[Any], outputs: list[Any], limits: Limits) -> None:
    total = 0
    for number, case in enumerate(zip(inputs, outputs, strict=True)):
        size = sum(
            len(value) if isinstance(value, str) else len(jsontext.dumps(value)) for value in case
        )
        if size > limits.max_case_chars:
            raise Malformed(f"test {number} has {size} characters, over {limits.max_case_chars}")
        total += size
    if total > limits.max_suite_chars:
        raise Malformed(f"the tests have {total} characters, over {limits.max_suite_chars}")


def _parsed(value: Any, column: str) -> Any:
    """A JSON column, as text or already parsed."""
    if not isinstance(value, str):
        return value
    try:
        return jsontext.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{column} is not valid JSON: {error}") from error


def _text(record: Record, key: str) -> str:
    """A text column; absent and null are empty."""
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{key} is {_kind(value)}, not text")
    if not is_encodable(value):
        raise Malformed(f"{key} holds half a character (a lone surrogate)")
    return value


def _list(fields: Mapping[str, Any], key: str) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list):
        raise Malformed(f"input_output has no list `{key}` (found {_kind(value)})")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
