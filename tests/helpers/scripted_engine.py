"""Engines of the refiner in memory: the interface of verl's client, outputs set by a test."""

import asyncio
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

Distribution = Mapping[int, float]
"""Token id to probability; sums to 1."""


@dataclass(frozen=True)
class FakeOutput:
    """What `FakeGenerator` answers: the part of verl's `TokenOutput` that the client reads."""

    token_ids: list[int]
    extra_fields: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeGenerator:
    """Answers each prompt with `answer(prompt_ids)`; waits for `gate` first where one is given.

    Attributes:
        answer: from prompt ids to output ids; may raise, to play a failing engine.
        gate: an event that holds every answer back until it is set.
        requests: the prompts received, in order.
        in_flight_peak: the largest number of requests that were under way at once.
    """

    answer: Callable[[list[int]], list[int]]
    gate: asyncio.Event | None = None
    requests: list[list[int]] = field(default_factory=list)
    in_flight_peak: int = 0
    _in_flight: int = 0

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> FakeOutput:
        """Answer one request; see the class."""
        self.requests.append(prompt_ids)
        self._in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self._in_flight)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return FakeOutput(self.answer(prompt_ids))
        finally:
            self._in_flight -= 1


@dataclass
class TableGenerator:
    """A language model given by its distributions, served as verl's vLLM server serves one.

    Honours temperature, max_tokens, prompt_logprobs and logit_bias, and stops after an end token.

    Attributes:
        model: from all tokens so far to the distribution of the next one at temperature 1.
        draw: picks one token of a distribution; not asked at temperature 0.
        end_ids: tokens that end an output.
        calls: the requests received: number of prompt tokens, and sampling parameters.
    """

    model: Callable[[tuple[int, ...]], Distribution]
    draw: Callable[[Distribution], int]
    end_ids: Collection[int]
    calls: list[tuple[int, dict[str, Any]]] = field(default_factory=list)

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> FakeOutput:
        """Answer one request; see the class."""
        self.calls.append((len(prompt_ids), sampling_params))
        return self.answer(prompt_ids, sampling_params)

    def answer(self, prompt_ids: list[int], sampling_params: dict[str, Any]) -> FakeOutput:
        """What `generate` returns."""
        token_ids: list[int] = []
        while len(token_ids) < sampling_params["max_tokens"]:
            token_ids.append(self._next((*prompt_ids, *token_ids), sampling_params))
            if token_ids[-1] in self.end_ids:
                break
        return FakeOutput(token_ids, self._prompt_scores(prompt_ids, sampling_params))

    def _next(self, context: tuple[int, ...], sampling_params: dict[str, Any]) -> int:
        bias = sampling_params.get("logit_bias", {})
        logits = {
            token: math.log(probability) + bias.get(token, 0.0)
            for token, probability in self.model(context).items()
        }
        if sampling_params["temperature"] == 0:
            return max(logits, key=lambda token: logits[token])
        return self.draw(softmax(logits, sampling_params["temperature"]))

    def _prompt_scores(
        self, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> dict[str, Any]:
        count = sampling_params.get("prompt_logprobs")
        if count is None:
            return {}
        rows: list[list[tuple[int, float]]] = []
        for position in range(1, len(prompt_ids)):
            model = self.model(tuple(prompt_ids[:position]))
            best = sorted(model.items(), key=lambda item: -item[1])[:count]
            own = prompt_ids[position]
            rows.append(best if count else [(own, model[own])])
        dummy = [[0] * max(count, 1)]
        return {
            "prompt_ids": [[token for token, _ in row] for row in rows] + dummy,
            "prompt_logprobs": [[math.log(p) for _, p in row] for row in rows] + dummy,
        }


def softmax(logits: Mapping[int, float], temperature: float) -> dict[int, float]:
    """The distribution of the tokens at a temperature above 0; tokens of probability 0 left out."""
    highest = max(logits.values())
    weights = {t: math.exp((logit - highest) / temperature) for t, logit in logits.items()}
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items() if weight > 0}
