"""Drives the decoding state machine through verl's token-in/token-out `generate`.

The names of the sampling parameters, and the form in which prompt log-probabilities come back, are
those of verl 0.9.1's vLLM and SGLang servers, which share them.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from refiner_worker.acceptance import Sampling, TokenScore
from refiner_worker.decoding import (
    Decoding,
    Reply,
    Request,
    VerifySettings,
    advance,
    begin,
    next_request,
)

EXCLUDING_BIAS = -1e9
"""Added to a logit, leaves the token a probability of exactly 0 in float32 at any temperature."""


DRAFT_TOKENS = {Decoding.NGRAM: 8, Decoding.COPY: 10}
"""Most tokens drafted in one step; our proposer drafts fewer if few agree."""
REPLICA_SPLITS = (
    "tensor_model_parallel_size",
    "data_parallel_size",
    "pipeline_model_parallel_size",
)
"""Keys of verl's rollout config whose product is the number of a server's GPUs."""


class Generator(Protocol):
    """verl's `LLMServerClient.generate`: token ids in, an object with `token_ids` out.

    Where `prompt_logprobs=k` is asked for, `extra_fields` of the output has "prompt_ids" and
    "prompt_logprobs", N rows for a prompt of N tokens: row i lists the k likeliest tokens after
    i + 1 prompt tokens, best first, or for k = 0 the prompt's own next token; the last is a dummy.
    """

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any: ...


@dataclass(frozen=True)
class Decoded:
    """One output and what it cost.

    Attributes:
        token_ids: the output, end token included if it ended.
        generated_tokens: tokens the engine generated; each took a forward pass of its own, unless
            the engine speculates.
        engine_calls: requests sent.
        scored_tokens: draft tokens whose log-probabilities were computed in a prefill.
    """

    token_ids: tuple[int, ...]
    generated_tokens: int
    engine_calls: int = 1
    scored_tokens: int = 0


class Engine:
    """A generator with a temperature and, perhaps, sampling parameters that only it understands."""

    def __init__(
        self, generator: Generator, temperature: float, extra: Mapping[str, Any] | None = None
    ) -> None:
        self._generator = generator
        self._temperature = temperature
        self._extra = dict(extra or {})
        # Seeded by the system: global seeds must not tie the coins to the engine's draws.
        self._random = random.Random()

    async def plain(self, prompt_ids: list[int], max_tokens: int) -> Decoded:
        """One request, whatever the engine makes of it; speculation inside is its own affair."""
        output = await self._ask(prompt_ids, {"max_tokens": max_tokens})
        return Decoded(tuple(output.token_ids), generated_tokens=len(output.token_ids))

    async def verify(
        self, prompt_ids: list[int], draft: Sequence[int], settings: VerifySettings
    ) -> Decoded:
        """Verify-then-resume decoding; see `decoding.py`."""
        state = begin(draft, settings)
        generated = scored = 0
        while (request := next_request(state)) is not None:
            output = await self._ask(
                [*prompt_ids, *request.continuation], _wishes(request, settings.sampling)
            )
            state = advance(state, _reply(output, request), self._coin)
            generated += len(output.token_ids)
            scored += request.scored
        return Decoded(state.output, generated, state.calls, scored)

    async def score(self, token_ids: Sequence[int], scored: int, count: int) -> list[TokenScore]:
        """The likeliest `count` tokens in the state before each of the last `scored` tokens.

        In one prefill; raw, that is at temperature 1.
        """
        wishes = {"max_tokens": 1, "prompt_logprobs": count}
        return _scores(await self._ask(list(token_ids), wishes), scored)

    def _coin(self, probability: float) -> bool:
        return self._random.random() < probability

    async def _ask(self, prompt_ids: list[int], wishes: dict[str, Any]) -> Any:
        neutral = {"temperature": self._temperature, "top_p": 1.0, "top_k": -1}
        return await self._generator.generate(
            uuid4().hex,
            prompt_ids=prompt_ids,
            sampling_params={**neutral, **self._extra, **wishes},
        )


def _wishes(request: Request, sampling: Sampling) -> dict[str, Any]:
    wishes: dict[str, Any] = {"max_tokens": request.max_tokens}
    if request.scored:
        wishes["prompt_logprobs"] = sampling.listed
    if request.excluded is not None:
        wishes["logit_bias"] = {request.excluded: EXCLUDING_BIAS}
    return wishes


def _reply(output: Any, request: Request) -> Reply:
    """The engine's output as the state machine reads it."""
    scores = _scores(output, request.scored) if request.scored else []
    return Reply(tuple(output.token_ids), scores)


def _scores(output: Any, count: int) -> list[TokenScore]:
    """The scores of the prompt's last `count` tokens."""
    # The row before a token's own is the one that predicts it; the last row is a dummy.
    rows = slice(-count - 1, -1)
    fields = output.extra_fields
    return [
        TokenScore(tuple(token_ids), tuple(log_probs))
        for token_ids, log_probs in zip(
            fields["prompt_ids"][rows], fields["prompt_logprobs"][rows], strict=True
        )
    ]


def replica_gpus(rollout: Any) -> int:
    """GPUs of one server of a verl rollout config."""
    return math.prod(rollout[key] for key in REPLICA_SPLITS)


def server_overrides(
    decoding: Decoding | str, engine: str, draft_tokens: int | None = None
) -> dict[str, Any]:
    """Keys of verl's rollout config that the refiner's servers need for a decoding method.

    Args:
        decoding: `ngram` and `copy` speculate inside the engine; the others need nothing.
        engine: verl's `rollout.name`, vllm or sglang.
        draft_tokens: most tokens drafted in one step; None for DRAFT_TOKENS. More save passes on
            long copies and cost what is drafted in vain; measured in docs/refiner.md.

    Raises ValueError if the engine cannot do it, and for `auto`, which is no decoding method.
    """
    decoding = Decoding(decoding)
    if decoding is Decoding.AUTO:
        raise ValueError("refiner.decoding=auto must be resolved for an engine first (`choose`)")
    if decoding not in _SPECULATION:
        return {}
    if engine not in _SPECULATION[decoding]:
        raise ValueError(
            f"refiner.decoding={decoding} cannot be set up on rollout.name={engine}; it is known "
            f"on {', '.join(_SPECULATION[decoding])}; or use refiner.decoding=plain"
        )
    drafted = draft_tokens or DRAFT_TOKENS[decoding]
    return {"engine_kwargs": {engine: _SPECULATION[decoding][engine](drafted)}}


def sampling_extra(engine: str) -> dict[str, Any]:
    """Sampling parameters that spare the engine work whose result nobody reads."""
    return {"detokenize": False} if engine == "vllm" else {}


def _vllm_ngram(draft_tokens: int) -> dict[str, Any]:
    speculative = {
        "method": "ngram",
        "num_speculative_tokens": draft_tokens,
        "prompt_lookup_min": 2,
        "prompt_lookup_max": 4,
    }
    return {"speculative_config": speculative}


def _vllm_copy(draft_tokens: int) -> dict[str, Any]:
    speculative = {
        "method": "custom_class",
        "model": "refiner_worker.copy_proposer.CopyProposer",
        "num_speculative_tokens": draft_tokens,
    }
    return {"speculative_config": speculative}


def _sglang_ngram(draft_tokens: int) -> dict[str, Any]:
    return {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": draft_tokens}


_SPECULATION = {
    Decoding.NGRAM: {"vllm": _vllm_ngram, "sglang": _sglang_ngram},
    Decoding.COPY: {"vllm": _vllm_copy},
}
