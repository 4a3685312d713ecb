"""What data preparation asks of the judge: are a problem's tests any good?"""

import re
from collections import Counter
from dataclasses import dataclass, replace

from reward import jsontext
from reward.compare import as_bytes, stdout_equal, values_equal
from reward.problem import Problem, TestCase
from reward.sandbox.wire import Kind
from reward.verdict import Tiers, Verdict, score

_WINDOW_CHARS = 120  # between an example's argument and the next, or its answer, in a prompt


@dataclass(frozen=True)
class ConstantAnswer:
    """The answer that, given regardless of the input, passes most tests."""

    answer: str
    passed: int
    total: int
    score: float


def best_constant(problem: Problem, tiers: Tiers, adaptive: bool) -> ConstantAnswer:
    """What a program that ignores its input can get; a high score says that the tests are weak.

    Nothing for assertions (CHECK), whose answers are not known: passed is 0.
    """
    total = len(problem.tests)
    if problem.kind == Kind.CHECK:
        return ConstantAnswer("", 0, total, tiers.wrong_answer)
    texts = Counter(_as_text(test) for test in problem.tests)
    answer = texts.most_common(1)[0][0]
    chosen = next(test for test in problem.tests if _as_text(test) == answer)
    passed = sum(_same_answer(problem.kind, test, chosen) for test in problem.tests)
    verdict = Verdict.ACCEPTED if passed == total else Verdict.WRONG_ANSWER
    return ConstantAnswer(answer, passed, total, score(verdict, passed, total, tiers, adaptive))


def without_examples(problem: Problem, prompt: str, min_tests: int) -> Problem:
    """The problem without the tests that `prompt` shows, where at least `min_tests` remain.

    A program that answers just the examples it was shown then passes nothing.
    """
    kept = tuple(test for test in problem.tests if not _shown(problem.kind, test, prompt))
    return replace(problem, tests=kept) if len(kept) >= min_tests else problem


def _as_text(test: TestCase) -> str:
    if isinstance(test.expected, str):
        return "\n".join(" ".join(line.split()) for line in _full_lines(test.expected))
    return jsontext.dumps(test.expected, sort_keys=True)


def _same_answer(kind: Kind, test: TestCase, chosen: TestCase) -> bool:
    if kind == Kind.STDIO:
        return stdout_equal(test.expected, as_bytes(chosen.expected))
    return values_equal(test.expected, chosen.expected)


def _shown(kind: Kind, test: TestCase, prompt: str) -> bool:
    if kind == Kind.STDIO:
        given = test.given.decode("utf-8", "replace")
        return _has_lines(prompt, given) and _has_lines(prompt, test.expected)
    if kind == Kind.CALL:
        values = [*jsontext.loads(test.given), test.expected]
        parts = [re.escape(_compact(jsontext.dumps(value))) for value in values]
        gap = f".{{0,{_WINDOW_CHARS}}}?"
        pattern = gap.join(rf"(?<![\d.]){part}(?![\d.])" for part in parts)
        return bool(re.search(pattern, _compact(prompt)))
    return False


def _has_lines(prompt: str, text: str) -> bool:
    """Whether the non-blank lines of `text` follow one another in `prompt`, as whole lines."""
    wanted, lines = _full_lines(text), _full_lines(prompt)
    if not wanted:
        return False
    starts = range(len(lines) - len(wanted) + 1)
    return any(lines[start : start + len(wanted)] == wanted for start in starts)


def _full_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _compact(text: str) -> str:
    return re.sub(r"\s+", "", text).replace("'", '"')
