"""What a benchmark is, and a problem of it, whatever form it came in."""

from dataclasses import dataclass
from enum import StrEnum

from recipe.evaluation.errors import EvaluationError
from reward.problem import Problem


class Benchmark(StrEnum):
    """The benchmarks by the name that the command line uses."""

    HUMANEVAL = "humaneval"
    HUMANEVAL_PLUS = "humaneval_plus"
    MBPP = "mbpp"
    MBPP_PLUS = "mbpp_plus"
    APPS = "apps"

    @property
    def family(self) -> "Family":
        return Family(self.value.removesuffix("_plus"))

    @classmethod
    def parse(cls, name: str) -> "Benchmark":
        """The benchmark called `name`.

        Raises:
            EvaluationError: there is none of that name.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(cls)
            raise EvaluationError(f"--benchmark {name!r} is unknown; use one of {known}") from None


class MbppSplit(StrEnum):
    """The splits of MBPP's 974 problems, by number (Austin et al. 2021, arXiv 2108.07732).

    bigcode-evaluation-harness and most papers evaluate the 500 of `test`.
    """

    ALL = "all"
    PROMPT = "prompt"
    TEST = "test"
    VALIDATION = "validation"
    TRAIN = "train"

    @property
    def numbers(self) -> range | None:
        """Which `task_id` are in it; None if every one is."""
        return _MBPP_NUMBERS.get(self)

    def has(self, problem_id: str) -> bool:
        """Whether a problem is in it, by the number at the end of its name."""
        number = problem_id.rpartition("/")[2]
        return self.numbers is None or (number.isdecimal() and int(number) in self.numbers)


_MBPP_NUMBERS = {
    MbppSplit.PROMPT: range(1, 11),
    MbppSplit.TEST: range(11, 511),
    MbppSplit.VALIDATION: range(511, 601),
    MbppSplit.TRAIN: range(601, 975),
}


class Family(StrEnum):
    """What decides how a problem is asked: the plus sets are asked like the plain ones."""

    HUMANEVAL = "humaneval"
    MBPP = "mbpp"
    APPS = "apps"


@dataclass(frozen=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class EvalProblem:
    """A problem as it is asked and judged.

    Attributes:
        prompt: HumanEval: the function's head and docstring. MBPP: a docstring with the task and
            one test. APPS: empty.
        messages: APPS: the prepared row's messages. Otherwise empty.
        entry_point: the function that the tests call; empty if the program reads stdin.
        reference: the benchmark's own solution as a whole program; empty if it gives none.
        difficulty: APPS's tier of difficulty; otherwise empty.
        judged: the tests. It adds nothing to a program: what is judged is the program as extracted.
    """

    problem_id: str
    family: Family
    judged: Problem
    entry_point: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    reference: str = ""
    difficulty: str = ""
