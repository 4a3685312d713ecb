"""Generation by a server with OpenAI's `/v1/completions`, such as vLLM, SGLang or llama.cpp.

Every request ends in one of three ways: a response; a prompt that is too long for the model, which
counts as a failed response; or nothing, because the server failed or refused. What has no response
is not saved and named at the end, and the same command asks for it again.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recipe.evaluation.engines import load_tokenizer
from recipe.evaluation.errors import EvaluationError, Unanswered
from recipe.evaluation.generate import Completion, Request, render
from recipe.evaluation.patience import Patience
from recipe.evaluation.protocols import Prompt
from recipe.evaluation.session import Session


class EndpointEngine:
    """A server, asked for `concurrency` responses at once.

    Chats are rendered here, with the model's own tokenizer, since the completions interface is the
    only one in which a response can be begun for the model; `chat` are options of the template. The
    environment's OPENAI_API_KEY is sent if it is set.
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
        chat: Mapping[str, Any] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise EvaluationError(f"--endpoint {url}: not a URL; write http://HOST:PORT/v1")
        self._url = url.rstrip("/")
        self._model = model
        self._tokenizer_name = tokenizer or model
        self._tokenizer: Any = None
        self._chat = chat
        key = os.environ.get("OPENAI_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._concurrency, self._patience = concurrency, patience or Patience()

    def weights(self) -> None:
        """A server does not show them."""

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        if prompt.messages and self._tokenizer is None:
            self._tokenizer = load_tokenizer(self._tokenizer_name)
        return render(prompt, self._tokenizer, self._tokenizer_name, self._chat)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        """Responses as they are ready. A Ctrl-C drops the requests in flight at once.

        Raises:
            EvaluationError: the server cannot be used at all.
            Unanswered: at the end, if some requests have no response.
        """
        with asyncio.Runner() as runner:
            session = Session(self._url, self._model, self._headers, self._patience)
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
