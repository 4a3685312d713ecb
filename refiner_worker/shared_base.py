"""One engine for policy and refiner if the policy is trained by LoRA adapters.

The base weights of the policy's servers are then the frozen reference. verl's vLLM server decides
by itself to use the adapter for every request; this one leaves it out if the request says so.
"""

from contextvars import ContextVar
from typing import Any

import ray
from verl.workers.rollout.replica import RolloutReplicaRegistry, TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from refiner_worker.base_weights import ON_BASE

_on_base: ContextVar[bool] = ContextVar("on_base", default=False)


class BaseSharingServer(vLLMHttpServer):
    """verl's server with a flag per request."""

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], *args: Any, **kwargs: Any
    ) -> TokenOutput:
        """verl's `generate`; without the adapter if `sampling_params[ON_BASE]` is true."""
        # Each request is a task with a context of its own, so that none sees another's flag.
        token = _on_base.set(bool(sampling_params.pop(ON_BASE, False)))
        try:
            return await super().generate(prompt_ids, sampling_params, *args, **kwargs)
        finally:
            _on_base.reset(token)

    @property
    def lora_as_adapter(self) -> bool:
        """Whether the adapter applies: to the request at hand, or outside of any to the server."""
        return super().lora_as_adapter and not _on_base.get()


class BaseSharingReplica(vLLMReplica):
    """verl's replica, made of such servers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(BaseSharingServer)


def share_base_weights() -> None:
    """Make the vLLM servers that this process starts from now on answer on their base weights."""
    RolloutReplicaRegistry.register("vllm", lambda: BaseSharingReplica)
