"""Prompts, stop words and programs of each protocol, from what their sources document.

bigcode-evaluation-harness (tasks `humaneval`, `humaneval-unstripped`, `mbpp`): the prompt is the
problem's text, stripped or not; MBPP's is a docstring of description and first test; a completion
ends before the first stop word; the program is prompt and completion. evalplus (0.3.1, chat): an
instruction, the problem fenced, an opening of the answer with an open fence, generation until the
fence closes, and the sanitised program. evalplus (0.3.1, base): the prompt stripped, with a line
break; its program is sanitised together with the prompt.
"""

import pytest

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.kinds import EvalProblem, Family, Message
from recipe.evaluation.protocols import PROTOCOLS, cut, protocol_named, protocols_for
from reward.problem import Problem, parse_input_output
from reward.sandbox.wire import Kind

TESTS = Problem("x", Kind.CHECK, ())
HUMANEVAL = EvalProblem(
    "HumanEval/7", Family.HUMANEVAL, TESTS, "add", prompt='\n\ndef add(a, b):\n    """Add."""\n'
)
MBPP_PROMPT = '"""\nWrite a function to double a number.\nassert double(2) == 4\n"""\n'
MBPP = EvalProblem("9", Family.MBPP, TESTS, "double", prompt=MBPP_PROMPT)
APPS = EvalProblem(
    "3",
    Family.APPS,
    parse_input_output({"inputs": ["1"], "outputs": ["1"]}),
    "",
    messages=(Message("system", "Be brief."), Message("user", "Echo.")),
)
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
OPENING = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)


@pytest.mark.parametrize(
    ("protocol", "problem", "text"),
    [
        ("bigcode", HUMANEVAL, 'def add(a, b):\n    """Add."""'),
        ("bigcode_unstripped", HUMANEVAL, '\n\ndef add(a, b):\n    """Add."""\n'),
        ("bigcode", MBPP, MBPP_PROMPT),
        ("bigcode_unstripped", MBPP, MBPP_PROMPT),
        ("evalplus_base", HUMANEVAL, 'def add(a, b):\n    """Add."""\n'),
        ("evalplus_base", MBPP, MBPP_PROMPT),
    ],
)
def test_completion_prompts_are_the_problems_text(
    protocol: str, problem: EvalProblem, text: str
) -> None:
    prompt = PROTOCOLS[protocol].prompt(problem)
    assert prompt.text == text
    assert prompt.messages == ()
    assert prompt.opening == ""


@pytest.mark.parametrize(
    ("problem", "task"),
    [(HUMANEVAL, 'def add(a, b):\n    """Add."""'), (MBPP, MBPP_PROMPT.strip())],
)
def test_the_chat_prompt_fences_the_task_and_opens_the_answer(
    problem: EvalProblem, task: str
) -> None:
    prompt = PROTOCOLS["chat"].prompt(problem)
    assert prompt.messages == (Message("user", f"{INSTRUCTION}\n```\n{task}\n```\n"),)
    assert prompt.opening == OPENING


def test_apps_is_asked_as_in_training() -> None:
    prompt = PROTOCOLS["apps"].prompt(APPS)
    assert (prompt.messages, prompt.opening) == (APPS.messages, "")
    assert PROTOCOLS["apps"].stop(Family.APPS) == ()


@pytest.mark.parametrize(
    ("protocol", "family", "words"),
    [
        (
            "bigcode",
            Family.HUMANEVAL,
            {"\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>"},
        ),
        (
            "bigcode",
            Family.MBPP,
            {"\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"},
        ),
        (
            "chat",
            Family.HUMANEVAL,
            {
                "<|endoftext|>",
                "<|endofmask|>",
                "</s>",
                "\nif __name__",
                "\ndef main(",
                "\nprint(",
                "\n```\n",
            },
        ),
        (
            "evalplus_base",
            Family.HUMANEVAL,
            {
                "<|endoftext|>",
                "<|endofmask|>",
                "</s>",
                "\nif __name__",
                "\ndef main(",
                "\nprint(",
                "\ndef ",
                "\nclass ",
                "\nimport ",
                "\nfrom ",
                "\nassert ",
            },
        ),
        (
            "evalplus_base",
            Family.MBPP,
            {
                "<|endoftext|>",
                "<|endofmask|>",
                "</s>",
                "\nif __name__",
                "\ndef main(",
                "\nprint(",
                '\n"""',
                "\nassert",
            },
        ),
    ],
)
def test_stop_words_are_the_documented_ones(protocol: str, family: Family, words: set[str]) -> None:
    assert set(PROTOCOLS[protocol].stop(family)) == words


def test_both_bigcode_protocols_and_both_chat_families_stop_alike() -> None:
    for family in (Family.HUMANEVAL, Family.MBPP):
        assert PROTOCOLS["bigcode"].stop(family) == PROTOCOLS["bigcode_unstripped"].stop(family)
    assert PROTOCOLS["chat"].stop(Family.MBPP) == PROTOCOLS["chat"].stop(Family.HUMANEVAL)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("\n    return 1\ndef g():\n    pass", "\n    return 1"),
        ("\n    # inside\n    return 1\n# outside", "\n    # inside\n    return 1"),
        ("\n    return 1\nif x:\nprint(1)", "\n    return 1"),  # the first of several
        ("def g(): return 1", "def g(): return 1"),  # a stop word begins on a new line
        ("", ""),
    ],
)
def test_a_completion_ends_before_the_first_stop_word(completion: str, expected: str) -> None:
    assert cut(completion, PROTOCOLS["bigcode"].stop(Family.HUMANEVAL)) == expected


@pytest.mark.parametrize(
    ("protocol", "problem", "completion", "program"),
    [
        (
            "bigcode",
            HUMANEVAL,
            "\n    return a + b\n\nprint(add(1, 2))",
            'def add(a, b):\n    """Add."""\n    return a + b\n',
        ),
        (
            "bigcode_unstripped",
            HUMANEVAL,
            "    return a + b\n\ndef other():",
            '\n\ndef add(a, b):\n    """Add."""\n    return a + b\n',
        ),
        (
            "bigcode",
            MBPP,
            'def double(x):\n    return 2 * x\n\n"""\nNext',
            f"{MBPP_PROMPT}def double(x):\n    return 2 * x\n",
        ),
        (
            "chat",
            HUMANEVAL,
            "import os\ndef add(a, b):\n\treturn a + b\nprint(add(1, 2))\n```\nDone.",
            "import os\ndef add(a, b):\n    return a + b\n",
        ),
        (
            "evalplus_base",
            HUMANEVAL,
            "\treturn a + b\n\nx = 1\ndef other():",
            'def add(a, b):\n    """Add."""\n    return a + b\n',
        ),
        (
            "evalplus_base",
            MBPP,
            "import math\ndef spare(x):\n    return x\ndef double(x):\n    return 2 * x\nassert x",
            "import math\ndef double(x):\n    return 2 * x\n",
        ),
        ("chat", HUMANEVAL, "I would rather not: sorry", None),
        ("apps", APPS, "So:\n```python\nprint(input())\n```\n", "print(input())\n"),
        ("apps", APPS, "print(input())", None),
    ],
)
def test_the_program_of_an_answer(
    protocol: str, problem: EvalProblem, completion: str, program: str | None
) -> None:
    assert PROTOCOLS[protocol].program(problem, completion) == program


def test_every_benchmark_is_asked_under_the_protocols_that_apply() -> None:
    names = ("bigcode", "bigcode_unstripped", "evalplus_base", "chat")
    assert [p.name for p in protocols_for(Family.HUMANEVAL, names)] == list(names)
    assert [p.name for p in protocols_for(Family.APPS, names)] == ["apps"]
    assert protocols_for(Family.MBPP, ("apps",)) == ()


def test_an_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(
        EvaluationError, match="use one of bigcode, bigcode_unstripped, evalplus_base, chat"
    ):
        protocol_named("evalplus")
