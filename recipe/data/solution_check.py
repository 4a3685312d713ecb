"""Do reference solutions pass their own tests, and what would a constant answer pass?

APPS was scraped: some of its tests are wrong, and a problem that its own solutions fail teaches the
policy that right programs are bad. The judge runs each problem's solutions until one is accepted,
and a few at least: where one prints what is expected and another, ending well, something else, the
problem may have several right answers, and exact comparison rejects right programs.

Verdicts are kept in a file beside the data, one line each as soon as it is there, under a digest of
tests, solution and judge: a preparation that was killed goes on, and a second one judges nothing.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import TypeVar

import reward
from reward import jsontext
from reward.compare import stdout_equal, values_equal
from reward.config import JudgeConfig
from reward.judge import Judge
from reward.problem import Problem
from reward.sandbox.wire import Kind
from reward.verdict import Verdict

CACHE_FILE = "checked.jsonl"
RIGHT, OTHER, NEITHER = "rx-"
_LETTERS = {Verdict.ACCEPTED: RIGHT, Verdict.WRONG_ANSWER: OTHER}
MAX_CONSTANTS = 8
"""Expected outputs tried as the constant answer, the most frequent first."""
AHEAD = 8
"""Problems a worker that are read before they are judged: a slow one does not stop the others."""
_NOT_IN_DIGEST = ("workers", "pool", "pool_actors", "pool_queue", "recycle_after", "extract")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class CheckOptions:
    """How solutions are checked.

    Attributes:
        max_solutions: of each problem, in the source's order, until one passes.
        compare_solutions: run as many of these at least, to see whether they disagree.
        drop_several_answers: leave out problems whose solutions disagree.
    """

    judge: JudgeConfig = field(default_factory=JudgeConfig)
    max_solutions: int = 3
    compare_solutions: int = 3
    drop_several_answers: bool = False


@dataclass(frozen=True)
class Checked:
    """The verdicts on a problem's solutions, in order.

    Attributes:
        tests: per solution a letter a test: RIGHT, OTHER where it ended well with another output.
    """

    verdicts: tuple[str, ...]
    tests: tuple[str, ...] = ()
    problem_id: str = ""

    @property
    def accepted(self) -> int | None:
        """Which solution is accepted, the first of several; None if none was."""
        places = (i for i, verdict in enumerate(self.verdicts) if verdict == Verdict.ACCEPTED)
        return next(places, None)

    @property
    def several_answers(self) -> bool:
        """Whether solutions disagree on a test: one gives what is expected, another does not.

        A solution may be wrong, so this is a question to whoever knows the problem.
        """
        return any({RIGHT, OTHER} <= set(column) for column in zip(*self.tests, strict=False))

    @property
    def judge_failed(self) -> bool:
        """Whether the judge, not a solution, failed: nothing is known of the problem then."""
        return self.accepted is None and Verdict.INTERNAL_ERROR in self.verdicts

    def reason(self) -> str:
        """Why the problem cannot be trained on."""
        found = ", ".join(f"{n} {name}" for name, n in sorted(Counter(self.verdicts).items()))
        return f"no reference solution passes the tests ({found})"


class VerdictFile:
    """Verdicts by digest, in a file of JSON lines. A line that cannot be read is judged again.

    In memory is where each verdict begins in the file, not the verdict.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._places: dict[bytes, int] = {}
        self._torn = False
        if path.exists():
            self._read()

    def _read(self) -> None:
        place = 0
        with self._path.open("rb") as lines:
            for line in lines:
                record = _verdict(line)
                if record is not None:
                    self._places[_short(record[0])] = place
                place += len(line)
                self._torn = not line.endswith(b"\n")

    def get(self, key: str) -> tuple[str, str] | None:
        """The verdict, and a letter a test."""
        place = self._places.get(_short(key))
        if place is None:
            return None
        with self._path.open("rb") as file:
            file.seek(place)
            record = _verdict(file.readline())
        return record[1:] if record is not None and record[0] == key else None

    def add(self, key: str, problem_id: str, verdict: str, tests: str) -> None:
        """Write a verdict; it survives the end of this process."""
        record = {"key": key, "problem_id": problem_id, "verdict": verdict, "tests": tests}
        line = json.dumps(record) + "\n"
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.write(b"\n" if self._torn else b"")
                self._places[_short(key)] = file.tell()
                file.write(line.encode())
            self._torn = False


def check_solutions(
    items: Iterable[T],
    problem_of: Callable[[T], tuple[Problem, Sequence[str]] | None],
    folder: Path,
    options: CheckOptions,
) -> Iterator[tuple[T, Checked | None]]:
    """Judge the solutions of each item's problem, as many at once as the judge has workers.

    In the items' order, and only some problems ahead of what is taken: memory does not grow with
    them. Problems without solutions have no verdicts, items without a problem none at all. Verdicts
    of the judge's own failures are not written.
    """
    known = VerdictFile(folder / CACHE_FILE)
    checker = _Checker(options, known, judge_identity(options.judge))

    def checked(item: T) -> Checked | None:
        problem = problem_of(item)
        return None if problem is None else checker.check(*problem)

    with checker:
        yield from in_order(checked, items, options.judge.worker_count)


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[tuple[T, R]]:
    """Each item with the function's result, in order; at most AHEAD items a thread wait."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > AHEAD * threads:
                first, task = waiting.popleft()
                yield first, task.result()
        while waiting:
            first, task = waiting.popleft()
            yield first, task.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Checker:
    """A judge that is started by the first solution without a verdict."""

    def __init__(self, options: CheckOptions, known: VerdictFile, identity: str) -> None:
        self._options, self._known, self._identity = options, known, identity
        self._judge: Judge | None = None
        self._lock = Lock()

    def __enter__(self) -> _Checker:
        return self

    def __exit__(self, *error: object) -> None:
        if self._judge is not None:
            self._judge.close()

    def check(self, problem: Problem, solutions: Sequence[str]) -> Checked:
        verdicts: list[str] = []
        tests: list[str] = []
        for solution in solutions[: self._options.max_solutions]:
            if Verdict.ACCEPTED in verdicts and len(verdicts) >= self._compared(problem):
                break
            verdict, letters = self._verdict(problem, solution)
            verdicts.append(verdict)
            tests.append(letters)
        return Checked(tuple(verdicts), tuple(tests), problem.problem_id)

    def _compared(self, problem: Problem) -> int:
        """Solutions to run at least; a problem's own checker leaves nothing to disagree about."""
        return 1 if problem.checker else self._options.compare_solutions

    def _verdict(self, problem: Problem, solution: str) -> tuple[str, str]:
        key = digest(problem, solution, self._identity)
        known = self._known.get(key)
        if known is None:
            result = self._started().judge(problem, solution)
            letters = "".join(_LETTERS.get(o.verdict, NEITHER) for o in result.outcomes)
            known = str(result.verdict), letters
            if result.verdict != Verdict.INTERNAL_ERROR:
                self._known.add(key, problem.problem_id, *known)
        return known

    def _started(self) -> Judge:
        with self._lock:
            self._judge = self._judge or Judge(self._options.judge)
            return self._judge


def digest(problem: Problem, solution: str, identity: str) -> str:
    """Equal where tests, solution and judge are equal."""
    tests = [
        (test.given.decode("utf-8", "surrogateescape"), test.expected) for test in problem.tests
    ]
    kind, entry, checker = str(problem.kind), problem.entry, problem.checker
    parts = jsontext.dumps([identity, kind, entry, checker, tests, solution])
    return hashlib.sha256(parts.encode()).hexdigest()


def judge_identity(config: JudgeConfig) -> str:
    """A digest of the judge's source and of the settings that a verdict may depend on."""
    settings = {key: value for key, value in asdict(config).items() if key not in _NOT_IN_DIGEST}
    folder = Path(reward.__path__[0])
    parts = [json.dumps(settings, sort_keys=True), f"Python {sys.version_info[:2]}"]
    parts += [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def best_constant(problem: Problem) -> int:
    """How many tests a program passes that prints, or returns, the best one constant."""
    expected = [test.expected for test in problem.tests]
    counts = Counter(jsontext.dumps(value) for value in expected)
    constants = [jsontext.loads(text) for text, _ in counts.most_common(MAX_CONSTANTS)]
    equal = values_equal if problem.kind == Kind.CALL else _prints
    return max(sum(equal(value, constant) for value in expected) for constant in constants)


def _prints(expected: str, constant: str) -> bool:
    return stdout_equal(expected, constant.encode("utf-8", "surrogatepass"))


def _verdict(line: bytes) -> tuple[str, str, str] | None:
    """Key, verdict and letters; None where the line cannot be read."""
    try:
        record = json.loads(line)
        _short(record["key"])
        return record["key"], record["verdict"], record["tests"]
    except (ValueError, KeyError, TypeError):
        return None


def _short(key: str) -> bytes:
    """Half of a digest: enough to find a line by, which has the whole."""
    return bytes.fromhex(key)[:16]
