"""Generation by a server with OpenAI's `/v1/completions`, such as vLLM, SGLang or llama.cpp.

Every request ends in one of three ways: a response; a prompt that is too long for the model, which
counts as a failed response; or nothing, because the server failed or refused. What has no response
is not saved and named at the end, and the same command asks for it again.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx

from recipe.evaluation.engines import load_tokenizer
from recipe.evaluation.errors import EvaluationError, Unanswered
from recipe.evaluation.generate import (
    NEUTRAL,
    PROMPT_TOO_LONG,
    Completion,
    Request,
    render,
)
from recipe.evaluation.patience import Attempts, Patience
from recipe.evaluation.protocols import Prompt
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


class EndpointEngine:
    """A server, asked for `concurrency` responses at once.

    Chats are rendered here, with the model's own tokenizer, since the completions interface is the
    only one in which a response can be begun for the model. The environment's OPENAI_API_KEY is
    sent if it is set.
    """

    name = "endpoint"

    def __init__(
        self,
        url: str,
        model: str,
        tokenizer: str | None,
        *,
        concurrency: int = 16,
        patience: Patience | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise EvaluationError(f"--endpoint {url}: not a URL; write http://HOST:PORT/v1")
        self._url = url.rstrip("/")
        self._model = model
        self._tokenizer_name = tokenizer or model
        self._tokenizer: Any = None
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._concurrency, self._patience = concurrency, patience or Patience()

    def weights(self) -> None:
        """A server does not show them."""

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        if prompt.messages and self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._tokenizer_name)
        return render(prompt, self._tokenizer, self._tokenizer_name)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        """Responses as they are ready. A Ctrl-C drops the requests in flight at once.

        Raises:
            EvaluationError: the server cannot be used at all.
            Unanswered: at the end, if some requests have no response.
        """
        with asyncio.Runner() as runner:
            session = _Session(self._url, self._model, self._headers, self._patience)
            waiting = list(requests)[::-1]
            running: dict[asyncio.Task[Completion | str], Request] = {}
            unanswered: list[str] = []
            try:
                runner.run(session.open())
                while waiting or running:
                    while waiting and len(running) < self._concurrency:
                        request = waiting.pop()
                        task = runner.get_loop().create_task(session.respond(request))
                        running[task] = request
                    done = runner.run(_first(running))
                    # Those that end everything last, so that no response is lost by them.
                    for task in sorted(done, key=lambda task: task.exception() is not None):
                        request, outcome = running.pop(task), task.result()
                        if isinstance(outcome, Completion):
                            yield request, outcome
                        else:
                            unanswered.append(f"{request.problem_id}: {outcome}")
            finally:
                runner.run(session.close(list(running)))
        if unanswered:
            raise Unanswered(
                f"--endpoint {self._url}: {len(unanswered)} of {len(requests)} responses are "
                f"missing ({unanswered[0]}); the others are saved, the same command asks for "
                "what is missing"
            )


async def _first(running: dict[asyncio.Task[Any], Request]) -> set[asyncio.Task[Any]]:
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return done


class _Session:
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
