"""Protocols: how a problem is put to a model, where its response ends, and which program it is.

A score depends on them as much as on the model, so each has a name and is reported by it:

- `bigcode`: the completion protocol of bigcode-evaluation-harness. HumanEval's prompt is sent as
  text, without white space at either end, and the completion ends at the first stop word. MBPP is
  asked by a docstring with one test; the harness strips nothing there.
- `bigcode_unstripped`: the same with HumanEval's prompt as it stands (the harness's task
  `humaneval-unstripped`).
- `evalplus_base`: evalplus's protocol for base models: the prompt without white space at either end
  and a line break, its stop words, and the sanitised program.
- `chat`: evalplus's protocol for instruction-tuned models: its instruction, its opening of the
  response, its stop words, and the sanitised program.
- `apps`: what a policy was trained on: the prepared row's messages, and the program that the judge
  would extract in training. The only one for APPS (ours).
"""

from collections.abc import Callable
from dataclasses import dataclass

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.kinds import EvalProblem, Family, Message
from recipe.evaluation.sanitise import sanitise
from reward.extract import Extract, extract

# Each begins with those that most often end a response: a server is given the first four.
BIGCODE_STOP = {
    Family.HUMANEVAL: (
        "\ndef", "\nif", "\n#", "\nprint", "\nclass", "\n@", "\n```", "<file_sep>",
    ),
    Family.MBPP: ('\n"""', "\nassert", "\nprint", "\nif", "\nclass", "\n<|/", "\n```"),
}  # fmt: skip
EVALPLUS_STOP = (
    "\nif __name__", "\nprint(", "\ndef main(", "<|endoftext|>", "<|endofmask|>", "</s>",
)  # fmt: skip
EVALPLUS_BASE_STOP = {
    Family.HUMANEVAL: ("\ndef ", "\nclass ", "\nassert ", "\nimport ", "\nfrom ", *EVALPLUS_STOP),
    Family.MBPP: ('\n"""', "\nassert", *EVALPLUS_STOP),
}
CHAT_STOP = ("\n```\n", *EVALPLUS_STOP)
CHAT_INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
CHAT_OPENING = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:"
)
TRAINED = "apps"


@dataclass(frozen=True)
class Prompt:
    """What is sent. With `messages` it goes through the chat template, and the response begins with
    `opening`; otherwise `text` is sent as it is.
    """

    text: str = ""
    messages: tuple[Message, ...] = ()
    opening: str = ""


@dataclass(frozen=True)
class EvalProtocol:
    """A named way to ask and to read the response.

    Attributes:
        prompt: what is sent for a problem.
        stop: the response ends before the first of these.
        program: the program in a completion (without `Prompt.text` and `Prompt.opening`), or None.
        max_tokens: of a completion, if nothing else is asked for.
    """

    name: str
    prompt: Callable[[EvalProblem], Prompt]
    stop: Callable[[Family], tuple[str, ...]]
    program: Callable[[EvalProblem, str], str | None]
    max_tokens: int


def program_in(
    protocol: EvalProtocol, problem: EvalProblem, completion: str, how: Extract
) -> str | None:
    """The program in a completion; as trained, the code block that the judge's `extract` takes."""
    if protocol.name == TRAINED:
        return extract(completion, how)
    return protocol.program(problem, completion)


def cut(completion: str, stop: tuple[str, ...]) -> str:
    """`completion` up to the first of the stop words."""
    places = [completion.find(word) for word in stop]
    return completion[: min((place for place in places if place >= 0), default=len(completion))]


def _stripped(problem: EvalProblem) -> Prompt:
    strip = problem.family == Family.HUMANEVAL
    return Prompt(problem.prompt.strip() if strip else problem.prompt)


def _unstripped(problem: EvalProblem) -> Prompt:
    return Prompt(problem.prompt)


def _bigcode_stop(family: Family) -> tuple[str, ...]:
    return BIGCODE_STOP[family]


def _continued(
    prompt: Callable[[EvalProblem], Prompt],
) -> Callable[[EvalProblem, str], str | None]:
    """The program that prompt and completion make together."""

    def program(problem: EvalProblem, completion: str) -> str:
        return prompt(problem).text + cut(completion, BIGCODE_STOP[problem.family])

    return program


def _evalplus_base(problem: EvalProblem) -> Prompt:
    return Prompt(problem.prompt.strip() + "\n")


def _evalplus_base_stop(family: Family) -> tuple[str, ...]:
    return EVALPLUS_BASE_STOP[family]


def _continued_and_sanitised(problem: EvalProblem, completion: str) -> str | None:
    text = cut(completion, EVALPLUS_BASE_STOP[problem.family]).replace("\t", "    ")
    return sanitise(_evalplus_base(problem).text + text, problem.entry_point)


def _chat(problem: EvalProblem) -> Prompt:
    request = f"{CHAT_INSTRUCTION}\n```\n{problem.prompt.strip()}\n```\n"
    return Prompt(messages=(Message("user", request),), opening=f"{CHAT_OPENING}\n```python\n")


def _chat_stop(family: Family) -> tuple[str, ...]:
    return CHAT_STOP


def _sanitised(problem: EvalProblem, completion: str) -> str | None:
    text = cut(completion, CHAT_STOP).replace("\t", "    ")
    return sanitise(text, problem.entry_point)


def _trained(problem: EvalProblem) -> Prompt:
    return Prompt(messages=problem.messages)


def _no_stop(family: Family) -> tuple[str, ...]:
    return ()


def _declared(problem: EvalProblem, completion: str) -> str | None:
    return extract(completion)


# The lengths are the defaults of the harness (512, there with the prompt) and of evalplus (768).
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        EvalProtocol("bigcode", _stripped, _bigcode_stop, _continued(_stripped), 512),
        EvalProtocol(
            "bigcode_unstripped", _unstripped, _bigcode_stop, _continued(_unstripped), 512
        ),
        EvalProtocol(
            "evalplus_base", _evalplus_base, _evalplus_base_stop, _continued_and_sanitised, 768
        ),
        EvalProtocol("chat", _chat, _chat_stop, _sanitised, 768),
        EvalProtocol(TRAINED, _trained, _no_stop, _declared, 1024),
    )
}
ASKED = tuple(name for name in PROTOCOLS if name != TRAINED)


def protocol_named(name: str) -> EvalProtocol:
    """The protocol called `name`.

    Raises:
        EvaluationError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"--protocol {name!r} is unknown; use one of {', '.join(ASKED)}")
    return PROTOCOLS[name]


def protocols_for(family: Family, names: tuple[str, ...]) -> tuple[EvalProtocol, ...]:
    """Those of `names` that apply: APPS is always asked as in training, nothing else ever is."""
    chosen = [protocol_named(name) for name in names]
    if family == Family.APPS:
        return (PROTOCOLS[TRAINED],)
    return tuple(protocol for protocol in chosen if protocol.name != TRAINED)
