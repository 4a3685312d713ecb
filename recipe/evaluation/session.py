"""One run of requests to a completions server: sent, repeated, given up."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.generate import NEUTRAL, PROMPT_TOO_LONG, Completion, Request
from recipe.evaluation.patience import Attempts, Patience
from recipe.evaluation.replies import (
    Failed,
    Refused,
    Reply,
    Served,
    check_cap,
    read_reply,
    read_served,
)

MAX_STOP_STRINGS = 4  # OpenAI's limit and vLLM's; the others are applied to the text afterwards
_REFUSALS = 3  # refused requests without one response, after which the server is not asked further
_MODELS_TIMEOUT_S = 10.0
_CHARS = 300  # of a reason that is shown


class Session:
    """The connections to a server during one `generate`, and what is known of it."""

    def __init__(self, url: str, model: str, headers: dict[str, str], patience: Patience) -> None:
        self._url, self._model, self._patience = url, model, patience
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(headers=headers, timeout=None, limits=limits)
        self._served = Served()
        self._answered_at = -1.0  # by the monotonic clock
        self._refused = 0
        self._quiet_until = 0.0
        self._told = ""

    async def open(self) -> None:
        """Ask which models there are; a server that does not say may be used all the same."""
        try:
            reply = await self._client.get(f"{self._url}/models", timeout=_MODELS_TIMEOUT_S)
            self._served = read_served(reply.json(), self._model)
        except (httpx.HTTPError, ValueError):
            self._served = Served()

    async def close(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def respond(self, request: Request) -> Completion | str:
        """The response, or the reason why there is none.

        A server counts the tokens that are asked for into the model's context, where vLLM in this
        process generates until the context is full. So one that finds a request too long is asked
        for a single token, and, if it has room for that, for as many as fit.
        """
        attempts = Attempts(self._patience)
        try:
            reply = await self._ask(request, attempts)
            if reply.too_long:
                reply = await self._ask_for_what_fits(request, attempts)
        except Failed as error:
            return str(error)[:_CHARS]
        self._answered_at = time.monotonic()
        if reply.too_long:
            return PROMPT_TOO_LONG
        check_cap(reply, request.max_tokens, self._served, self._url)
        return Completion(reply.text, reply.finish, reply.tokens)

    async def _ask_for_what_fits(self, request: Request, attempts: Attempts) -> Reply:
        one = await self._ask(replace(request, max_tokens=1), attempts)
        if one.too_long:
            return one
        if self._served.context is None or one.prompt_tokens is None:
            raise Failed(
                f"no room for {request.max_tokens} tokens, and the server does not say how many "
                "fit; give a smaller --max-tokens"
            )
        room = self._served.context - one.prompt_tokens
        return one if room <= 1 else await self._ask(replace(request, max_tokens=room), attempts)

    async def _ask(self, request: Request, attempts: Attempts) -> Reply:
        """One reply, asked for again while the server is busy, out of reach or broken.

        Raises:
            Failed: there is none for this request.
            EvaluationError: there will be none for any.
        """
        body = json.dumps(self._body(request)).encode()
        reason: Failed | None = None
        while True:
            await asyncio.sleep(max(0.0, self._quiet_until - time.monotonic()))
            timeout_s = attempts.timeout_s
            try:
                return await self._attempt(body, timeout_s)
            except Refused as error:
                self._count_refusal(error)
                raise
            except Failed as error:
                wait_s = attempts.wait_s(error.wait_s, malformed=error.malformed)
                # That the last attempt had little time left says less than what went before.
                if reason is None or not error.timed_out or timeout_s == self._patience.attempt_s:
                    reason = error
                if wait_s is None:
                    raise self._ended(attempts, reason) from error
                if error.wait_s:
                    self._quiet_until = max(self._quiet_until, time.monotonic() + error.wait_s)
                self._tell(reason)
                await asyncio.sleep(wait_s)

    async def _attempt(self, body: bytes, timeout_s: float) -> Reply:
        headers = {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._client.post(
                    f"{self._url}/completions", content=body, headers=headers
                )
        except TimeoutError as error:
            raise Failed(f"no reply in {timeout_s:.0f} s", timed_out=True) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failed(f"{type(error).__name__}: {error}") from error
        return read_reply(reply.status_code, reply.headers.get("Retry-After"), reply.content)

    def _body(self, request: Request) -> dict[str, Any]:
        body = {
            "model": self._model,
            "prompt": request.text,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": list(request.stop[:MAX_STOP_STRINGS]),
            "seed": request.seed,
            **NEUTRAL,
        }
        return body if request.special_tokens else body | {"add_special_tokens": False}

    def _count_refusal(self, error: Refused) -> None:
        """End everything if it is the whole server that refuses."""
        self._refused += 1
        if error.final or (self._answered_at < 0 and self._refused >= _REFUSALS):
            raise EvaluationError(
                f"--endpoint {self._url}, --model {self._model}: {str(error)[:_CHARS]}"
                f"{self._served.hint(self._model)}"
            ) from error

    def _ended(self, attempts: Attempts, error: Failed) -> Exception:
        """What ends this request, or, if the server has answered none since it began, all."""
        if self._answered_at >= attempts.started:
            return error
        waited = time.monotonic() - attempts.started
        return EvaluationError(
            f"--endpoint {self._url}: no usable reply in {waited:.0f} s ({str(error)[:_CHARS]}); "
            "what was generated is saved, run the same command again once it answers, or wait "
            "longer with --retry-for"
        )

    def _tell(self, error: Failed) -> None:
        """Say once a reason that requests are sent again."""
        reason = str(error)[:_CHARS]
        if reason != self._told:
            self._told = reason
            print(
                f"--endpoint {self._url}: {reason}; asking again, for up to "
                f"{self._patience.total_s:.0f} s a response (--retry-for)",
                file=sys.stderr,
            )
