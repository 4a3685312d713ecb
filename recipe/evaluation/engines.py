"""Generation by vLLM in this process, and the tokenizer that every engine renders chats with."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.generate import (
    NEUTRAL,
    PROMPT_TOO_LONG,
    Completion,
    Request,
    render,
)
from recipe.evaluation.protocols import Prompt
from recipe.evaluation.weights import weights_sha256

_IN_FLIGHT = 512  # requests given to vLLM at once; it batches of them what fits


def load_tokenizer(model: str) -> Any:
    """The Hugging Face tokenizer of `model`.

    Raises:
        EvaluationError: there is none to be had.
    """
    from transformers import AutoTokenizer

    check_model(model)
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EvaluationError(
            f"--model {model}: no tokenizer there ({reason}); give a folder in Hugging Face form, "
            "or, with --endpoint, its tokenizer as --tokenizer"
        ) from error


def check_model(model: str) -> None:
    """Refuse what can only be meant as a folder and is none with a model in it.

    Raises:
        EvaluationError: with the fix.
    """
    path = Path(model).expanduser()
    local = model.startswith(("/", ".", "~")) or path.exists()
    if local and not (path / "config.json").is_file():
        raise EvaluationError(
            f"--model {model}: no folder with a config.json; give a checkpoint in Hugging Face "
            "form (verl's own are merged by `python -m recipe.evaluation publish`) or a hub name"
        )


class VllmEngine:
    """vLLM's engine in this process, with `options` (its `EngineArgs`) as they are given.

    `chat` are options of the chat template.
    """

    def __init__(
        self,
        model: str,
        tokenizer: str | None,
        options: Mapping[str, Any],
        chat: Mapping[str, Any] | None = None,
    ) -> None:
        check_model(model)
        self._model, self._chat = model, chat
        self._tokenizer = load_tokenizer(tokenizer or model)
        self._engine = _vllm_engine(model, tokenizer, options)
        self._max_tokens = int(self._engine.model_config.max_model_len)

    @property
    def name(self) -> str:
        import vllm

        return f"vllm {vllm.__version__}"

    def weights(self) -> str | None:
        return weights_sha256(self._model)

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        return render(prompt, self._tokenizer, self._model, self._chat)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        """Responses as they are ready; a prompt that leaves no room for a response gets none."""
        waiting = list(enumerate(requests))[::-1]
        running: dict[str, Request] = {}
        while waiting or running:
            while waiting and len(running) < _IN_FLIGHT:
                number, request = waiting.pop()
                if self._add(str(number), request):
                    running[str(number)] = request
                else:
                    yield request, PROMPT_TOO_LONG
            for output in self._engine.step() if running else ():
                if output.finished:
                    yield running.pop(_own_id(output.request_id)), _completion(output)

    def _add(self, number: str, request: Request) -> bool:
        from vllm import SamplingParams

        tokens = self._tokenizer(request.text, add_special_tokens=request.special_tokens)
        ids = list(tokens["input_ids"])
        if len(ids) >= self._max_tokens:
            return False
        params = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            stop=list(request.stop),
            seed=request.seed,
            **NEUTRAL,
        )
        self._engine.add_request(number, {"type": "token", "prompt_token_ids": ids}, params)
        return True


def _own_id(request_id: str) -> str:
    """The id that was given; vLLM may append a suffix of its own."""
    return request_id.partition("-")[0]


def _completion(output: Any) -> Completion:
    response = output.outputs[0]
    tokens = len(response.token_ids)
    return Completion(response.text, str(response.finish_reason), tokens)


def _vllm_engine(model: str, tokenizer: str | None, options: Mapping[str, Any]) -> Any:
    """vLLM's engine; its log is kept to errors, unless VLLM_LOGGING_LEVEL says otherwise."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EvaluationError(
            f"vLLM cannot be imported ({error}); install it, or give a running server as --endpoint"
        ) from error
    if current_platform.is_cpu():
        # A prompt that is prefilled in parts has its random generator set back, which torch's CPU
        # generator cannot do (vLLM 0.28): with a seed a sample would end the engine.
        options = {"enable_chunked_prefill": False, **options}
    try:
        arguments = EngineArgs(model=model, tokenizer=tokenizer, **options)
        return LLMEngine.from_engine_args(arguments)
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"--model {model}, --engine {dict(options)}: vLLM refuses ({error}); use the names and "
            "values of vllm.EngineArgs"
        ) from error
