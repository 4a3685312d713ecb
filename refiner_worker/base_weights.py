"""Asks the policy's own servers to generate by their base weights (`placement: shared_base`)."""

from typing import Any

from refiner_worker.engine import Generator

ON_BASE = "on_base_weights"
"""A sampling parameter of our servers, never seen by the engine: generate without the adapter."""


class OnBaseWeights:
    """A generator whose every request asks for the base weights; see `shared_base.py`."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        """As the generator's own `generate`, with the flag set."""
        return await self._generator.generate(
            request_id,
            prompt_ids=prompt_ids,
            sampling_params={**sampling_params, ON_BASE: True},
        )
