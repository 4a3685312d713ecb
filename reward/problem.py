"""Problems as the judge wants them, from APPS and HumanEval records, or refused with a reason."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reward import assertions, jsontext
from reward.assertions import compiles
from reward.compare import normalise
from reward.sandbox.wire import Kind

MAX_CASE_BYTES = 32 << 20
MAX_TESTS = 10_000
CHECKER = "check"


class MalformedProblem(ValueError):
    """A problem that cannot be judged; the message says why. Quarantine it."""


@dataclass(frozen=True)
class TestCase:
    """One test: what the program is given, and what it must answer.

    `given` is stdin, the JSON list of arguments, or the test program; `expected` is text for
    STDIO, a normalised value for CALL, and None for CHECK.
    """

    __test__ = False  # the name is no test class for pytest

    given: bytes
    expected: Any

    @property
    def expected_bytes(self) -> int:
        """Roughly how long a right answer is."""
        if isinstance(self.expected, str):
            return len(self.expected)
        return len(jsontext.dumps(self.expected))


@dataclass(frozen=True)
class Problem:
    """A problem with its tests, duplicates collapsed.

    `entry` names the function of CALL and CHECK problems; `prefix` precedes answers that complete
    the prompt (HumanEval's form), `preface` answers that are whole programs. `checker` is the
    source of a function `check(input, output, answer)` that says whether an output is right.
    """

    problem_id: str
    kind: Kind
    tests: tuple[TestCase, ...]
    entry: str = ""
    prefix: str = ""
    preface: str = ""
    duplicates: int = 0
    checker: str = ""


def parse_problem(record: Mapping[str, Any]) -> Problem:
    """A problem from a record: HumanEval's form where it has `entry_point` and `test`, else APPS.

    A problem in APPS form may have a `checker`, in the record or in its `input_output`.

    Raises:
        MalformedProblem: with the reason.
    """
    problem_id = str(record.get("problem_id", record.get("task_id", "")))
    if "entry_point" in record and "test" in record:
        return _check_problem(problem_id, record)
    if "input_output" not in record:
        raise MalformedProblem("neither `input_output` nor `entry_point` with `test`")
    return parse_input_output(record["input_output"], problem_id, record.get("checker"))


def parse_input_output(
    cases: str | Mapping[str, Any], problem_id: str = "", checker: str | None = None
) -> Problem:
    """A problem from APPS's `input_output`, parsed or as JSON text.

    Raises:
        MalformedProblem: not of APPS's form, no tests, unequal numbers of inputs and outputs,
            a value of unknown type, a case above MAX_CASE_BYTES, or a checker that is none.
    """
    cases = _loads(cases)
    inputs, outputs = cases.get("inputs"), cases.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise MalformedProblem("`inputs` and `outputs` must be lists")
    if len(inputs) != len(outputs):
        raise MalformedProblem(f"{len(inputs)} inputs but {len(outputs)} outputs")
    if not inputs:
        raise MalformedProblem("no tests")
    if len(inputs) > MAX_TESTS:
        raise MalformedProblem(f"{len(inputs)} tests, at most {MAX_TESTS}")
    entry = cases.get("fn_name") or ""
    if not isinstance(entry, str) or (entry and not entry.isidentifier()):
        raise MalformedProblem(f"fn_name {entry!r} is not a name")
    if entry:
        tests = _call_tests(inputs, outputs, cases.get("unwrap_outputs"))
    else:
        tests = [
            TestCase(_text(i, "input").encode("utf-8", "surrogatepass"), _text(o, "output"))
            for i, o in zip(inputs, outputs, strict=True)
        ]
    checker = _checker(checker or cases.get("checker"))
    unique = _collapse(tests, several_answers=bool(checker))
    kind = Kind.CALL if entry else Kind.STDIO
    repeated = len(tests) - len(unique)
    return Problem(problem_id, kind, tuple(unique), entry, duplicates=repeated, checker=checker)


def _checker(source: Any) -> str:
    """The source of a problem's own checker; empty if it has none."""
    if source is None or source == "":
        return ""
    if not isinstance(source, str):
        raise MalformedProblem(f"checker is a {type(source).__name__}, not Python source")
    try:
        body = assertions.parsed(source).body
    except SyntaxError as error:
        raise MalformedProblem(f"the checker does not compile: {error}") from error
    if not any(isinstance(node, ast.FunctionDef) and node.name == CHECKER for node in body):
        raise MalformedProblem(f"the checker defines no function {CHECKER}(input, output, answer)")
    return source


def _loads(cases: str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(cases, str):
        try:
            cases = jsontext.loads(cases)
        except (ValueError, RecursionError) as error:
            raise MalformedProblem(f"input_output is not JSON: {error}") from error
    if not isinstance(cases, Mapping):
        raise MalformedProblem(f"input_output is a {type(cases).__name__}, not an object")
    return cases


def _call_tests(inputs: list[Any], outputs: list[Any], unwrap: bool | None) -> list[TestCase]:
    """Call-based tests. Some of APPS wraps each output in a list of one; a problem does so for
    all of its outputs or for none, unless `unwrap_outputs` says otherwise."""
    if unwrap is None:
        unwrap = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    tests = []
    for arguments, output in zip(inputs, outputs, strict=True):
        if not isinstance(arguments, list):
            raise MalformedProblem(f"arguments are a {type(arguments).__name__}, not a list")
        try:
            expected = normalise(output[0] if unwrap else output)
            given = jsontext.dumps(arguments).encode()
        except (TypeError, ValueError, RecursionError, KeyError, IndexError) as error:
            raise MalformedProblem(f"a case is not JSON: {error}") from error
        _check_size(len(given))
        tests.append(TestCase(given, expected))
    return tests


def _text(value: Any, what: str) -> str:
    """A case of a stdin/stdout problem: text, or a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise MalformedProblem(f"an {what} is a {type(value).__name__}, not text or lines")
    _check_size(len(value))
    return value


def _check_size(size: int) -> None:
    if size > MAX_CASE_BYTES:
        raise MalformedProblem(f"a case of {size} bytes, at most {MAX_CASE_BYTES}")


def _collapse(tests: list[TestCase], several_answers: bool) -> list[TestCase]:
    """Without repeated tests, so that repeating one does not weigh more.

    Raises:
        MalformedProblem: the same input with two different outputs, and no checker.
    """
    first: dict[bytes, TestCase] = {}
    for test in tests:
        known = first.setdefault(test.given, test)
        if known is test or several_answers:
            continue
        if jsontext.dumps(known.expected) != jsontext.dumps(test.expected):
            raise MalformedProblem("one input with two different outputs")
    return list(first.values())


def _check_problem(problem_id: str, record: Mapping[str, Any]) -> Problem:
    entry, test = record["entry_point"], record["test"]
    prompt = record.get("prompt", record.get("complete_prompt", ""))  # BigCodeBench has the latter
    if not all(isinstance(text, str) for text in (entry, test, prompt)):
        raise MalformedProblem("`entry_point`, `test` and `prompt` must be text")
    entry = entry.strip()
    if not entry.isidentifier():
        raise MalformedProblem(f"entry_point {entry!r} is not a name")
    if not test.strip():
        raise MalformedProblem("the test program is empty")
    if reason := assertions.fault(test):
        raise MalformedProblem(reason)
    source = jsontext.dumps({"prompt": prompt, "test": test}).encode()
    _check_size(len(source))
    prefix = _prefix(prompt, record.get("canonical_solution"), entry)
    preface = f"{prompt}\n\n" if compiles(prompt) else ""
    return Problem(problem_id, Kind.CHECK, (TestCase(source, None),), entry, prefix, preface)


def _prefix(prompt: str, solution: Any, entry: str) -> str:
    """The prompt as it precedes completions.

    Some of MBPP's solutions are indented otherwise than the docstring above them; where the
    problem's own solution compiles only without the docstring, the prompt goes without it.
    """
    if not isinstance(solution, str) or compiles(prompt + solution):
        return prompt
    shorter = _without_docstring(prompt, entry)
    return shorter if compiles(shorter + solution) else prompt


def _without_docstring(prompt: str, entry: str) -> str:
    """`prompt` up to the docstring that ends it."""
    try:
        last = ast.parse(prompt).body[-1]
    except (SyntaxError, ValueError, IndexError):
        return prompt
    if not isinstance(last, ast.FunctionDef) or last.name != entry or len(last.body) != 1:
        return prompt
    return "".join(prompt.splitlines(keepends=True)[: last.body[0].lineno - 1])


def program_source(problem: Problem, code: str) -> str:
    """What is compiled: `code`, after the prompt if the problem has one.

    An answer that starts indented, or does not define `entry`, completes the prompt; any other is
    a program of its own, which may use the prompt's imports and helpers. A byte order mark in front
    is none of it, as in a file.
    """
    code = code.removeprefix("\ufeff")
    if problem.kind != Kind.CHECK:
        return code
    first = next((line for line in code.splitlines() if line.strip()), "")
    name = re.escape(problem.entry)
    defines = re.search(rf"^(async\s+)?(def|class)\s+{name}\b|^{name}\s*=", code, re.MULTILINE)
    whole = bool(defines) and not first[:1].isspace()
    return (problem.preface if whole else problem.prefix) + code
