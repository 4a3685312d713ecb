"""One vLLM engine of this process's own, spoken to as verl's servers are: for tests and benchmarks.

Neither Ray nor verl is needed, so what is measured is the engine and the decoding. On a machine
without a GPU the environment and shims of `recipe.cpu` must be in place before vLLM is imported.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from vllm import SamplingParams, TokensPrompt
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import StatLoggerBase

from refiner_worker.copy_proposer import CopyProposer

ShapeScores = Callable[..., None]
"""verl's `extract_prompt_logprobs(output, num_prompt_logprobs, result_dict)`."""


@dataclass(frozen=True)
class LocalOutput:
    """The part of verl's `TokenOutput` that the refiner reads."""

    token_ids: list[int]
    extra_fields: dict[str, Any] = field(default_factory=dict)


class _Counts(StatLoggerBase):
    """Counts what the engine did.

    Attributes:
        passes: how often a request was given tokens: once in each forward pass it took part in.
        drafted: tokens that were proposed. accepted: those of them that stood.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.passes = self.drafted = self.accepted = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        if iteration_stats is not None:
            self.passes += len(iteration_stats.time_to_first_tokens_iter)
            self.passes += len(iteration_stats.inter_token_latencies_iter)
        drafts = getattr(scheduler_stats, "spec_decoding_stats", None)
        if drafts is not None:
            self.drafted += drafts.num_draft_tokens
            self.accepted += drafts.num_accepted_tokens

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


class ForgettingWorker:
    """What vLLM's worker is extended by."""

    model_runner: Any

    def forget_drafts(self) -> None:
        """Let a proposer that remembers texts (`copy_proposer`) start anew."""
        drafter = getattr(self.model_runner, "drafter", None)
        if isinstance(drafter, CopyProposer):
            drafter.forget()


class LocalVllm:
    """A running engine; leave the `async with` to stop it.

    Args:
        model: a model's folder.
        shape_scores: turns the engine's prompt log-probabilities into verl's form.
        engine_args: vLLM's (`max_model_len`, `speculative_config`, …).
    """

    def __init__(self, model: str, shape_scores: ShapeScores, **engine_args: Any) -> None:
        self._shape_scores = shape_scores
        self._counts: list[_Counts] = []
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=model,
                worker_extension_cls=f"{__name__}.{ForgettingWorker.__name__}",
                **engine_args,
            ),
            stat_loggers=[self._count],
        )

    def _count(self, vllm_config: Any, engine_index: int = 0) -> _Counts:
        self._counts.append(_Counts(vllm_config, engine_index))
        return self._counts[-1]

    @property
    def forward_passes(self) -> int:
        """Forward passes so far, summed over the requests that each of them served."""
        return sum(one.passes for one in self._counts)

    @property
    def drafts(self) -> tuple[int, int]:
        """Tokens that were drafted so far, and those of them that were accepted."""
        counts = self._counts
        return sum(one.drafted for one in counts), sum(one.accepted for one in counts)

    async def sleep(self) -> None:
        """Weights to the machine's memory, the cache given up; needs `enable_sleep_mode`."""
        await self._engine.sleep(level=1)

    async def wake_up(self) -> None:
        """Take the memory back."""
        await self._engine.wake_up()

    async def forget(self) -> None:
        """Empty the prefix cache and the proposer's memory: equal prompts cost what new ones do."""
        if not await self._engine.reset_prefix_cache():
            raise RuntimeError("the prefix cache is in use: wait for all requests before `forget`")
        await self._engine.collective_rpc("forget_drafts")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.shutdown()

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> LocalOutput:
        """Answer one request as verl's vLLM server does."""
        params = SamplingParams(**sampling_params)
        prompt = TokensPrompt(prompt_token_ids=prompt_ids)
        async for last in self._engine.generate(prompt, params, request_id):
            output = last
        fields: dict[str, Any] = {}
        self._shape_scores(output, params.prompt_logprobs, fields)
        return LocalOutput(list(output.outputs[0].token_ids), fields)
