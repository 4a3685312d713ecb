"""From problems to samples on disk: what is missing is generated, and saved as it comes."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tqdm import tqdm

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.files import Log
from recipe.evaluation.kinds import EvalProblem, Family
from recipe.evaluation.protocols import EvalProtocol, Prompt, cut

_MARKER = "@@the-answer-goes-on-here@@"
NEUTRAL: dict[str, float] = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sampling parameters that no protocol uses, at the values that switch them off. They are always
given, since a server takes what a request omits from the model's generation_config.json."""


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `max_tokens` None means the protocol's own."""

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        self._check("samples", self.samples >= 1, "use 1 or more")
        self._check("temperature", self.temperature >= 0, "use 0 (greedy) or more")
        self._check("top-p", 0 < self.top_p <= 1, "use a share above 0, at most 1")
        self._check("max-tokens", self.max_tokens is None or self.max_tokens > 0, "use 1 or more")
        if self.temperature == 0 and self.samples > 1:
            raise EvaluationError(
                f"--samples {self.samples} with --temperature 0 gives the same response each time; "
                "use --samples 1, or a temperature above 0"
            )

    def _check(self, key: str, good: bool, fix: str) -> None:
        if not good:
            value = getattr(self, key.replace("-", "_"))
            raise EvaluationError(f"--{key} {value}: {fix}")


@dataclass(frozen=True)
class Request:
    """One response to be generated.

    `special_tokens`: whether the tokenizer adds its own (a beginning of text); a chat template has
    written them already.
    """

    problem_id: str
    sample: int
    text: str
    special_tokens: bool
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Completion:
    """A response.

    Attributes:
        finish: the engine's reason, or `prompt_too_long` if it had no room for a response.
        tokens: how many were generated, None if the engine does not say.
    """

    text: str
    finish: str
    tokens: int | None = None


PROMPT_TOO_LONG = Completion("", "prompt_too_long", 0)


class Engine(Protocol):
    """Whatever generates: responses come in the order in which they are ready."""

    @property
    def name(self) -> str:
        """What it is, with its version if that is known."""
        ...

    def weights(self) -> str | None:
        """The hash of the model's weights (`weights_sha256`), None if it cannot be had."""
        ...

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]: ...

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        """The text to send, and whether the tokenizer is to add its special tokens."""
        ...


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that writes chats."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


def render(
    prompt: Prompt, tokenizer: ChatTokenizer, model: str, options: Mapping[str, Any] | None = None
) -> tuple[str, bool]:
    """The text of a prompt, ending where the model goes on, as `Engine.render`.

    With an opening, the template is applied to a response that holds a marker behind it, and the
    text is cut there, so that it ends in the opening, whatever the template adds to a response.

    Args:
        options: of the chat template.

    Raises:
        EvaluationError: a chat, and the tokenizer has no chat template.
    """
    if not prompt.messages:
        return prompt.text, True
    if not tokenizer.chat_template:
        raise EvaluationError(
            f"--model {model}: its tokenizer has no chat template; use --protocol bigcode, or an "
            "instruction-tuned model"
        )
    chat = [{"role": message.role, "content": message.content} for message in prompt.messages]
    given = dict(options or {}) | {"tokenize": False}
    if not prompt.opening:
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, **given)
        return str(text), False
    response = {"role": "assistant", "content": f"{prompt.opening}{_MARKER}\n```\n"}
    whole = tokenizer.apply_chat_template([*chat, response], **given)
    return str(whole).partition(_MARKER)[0], False


def missing(
    problems: Iterable[EvalProblem], samples: int, log: Log
) -> list[tuple[EvalProblem, int]]:
    """The (problem, sample index) pairs that the log does not have, first samples first.

    So that after an interruption every problem has about equally many samples.
    """
    known = {(record["problem_id"], record["sample"]) for record in log.records()}
    chosen = list(problems)
    return [
        (problem, sample)
        for sample in range(samples)
        for problem in chosen
        if (problem.problem_id, sample) not in known
    ]


def generate_missing(
    wanted: Sequence[tuple[EvalProblem, int]],
    protocol: EvalProtocol,
    sampling: Sampling,
    engine: Engine,
    log: Log,
    title: str,
) -> None:
    """Generate and save the wanted samples."""
    rendered = {p.problem_id: engine.render(protocol.prompt(p)) for p, _ in wanted}
    requests = [
        _request(problem, sample, rendered[problem.problem_id], protocol, sampling)
        for problem, sample in wanted
    ]
    with tqdm(total=len(requests), desc=f"{title}: writing", unit="response", disable=None) as bar:
        for request, whole in engine.generate(requests):
            completion = trimmed(whole, request.stop)
            log.append(
                {
                    "problem_id": request.problem_id,
                    "sample": request.sample,
                    "completion": completion.text,
                    "finish": completion.finish,
                    "tokens": completion.tokens,
                }
            )
            bar.update()


def trimmed(completion: Completion, stop: tuple[str, ...]) -> Completion:
    """The response up to the first stop string: an engine may know fewer of them."""
    text = cut(completion.text, stop)
    return completion if text == completion.text else replace(completion, text=text, finish="stop")


def _request(
    problem: EvalProblem,
    sample: int,
    rendered: tuple[str, bool],
    protocol: EvalProtocol,
    sampling: Sampling,
) -> Request:
    text, special_tokens = rendered
    return Request(
        problem_id=problem.problem_id,
        sample=sample,
        text=text,
        special_tokens=special_tokens,
        stop=protocol.stop(Family(problem.family)),
        max_tokens=sampling.max_tokens or protocol.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed_of(sampling.seed, problem.problem_id, sample),
    )


def seed_of(seed: int, problem_id: str, sample: int) -> int:
    """A seed of the sample's own, so that a resumed evaluation draws what an unbroken one would."""
    digest = hashlib.sha256(f"{seed}/{problem_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
