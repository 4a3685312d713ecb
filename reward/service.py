"""The handlers of the judge's HTTP service; see `reward.serve`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as latest

from reward import fusion, jsontext
from reward.extract import Extract, extract
from reward.fusion import BadRequest
from reward.judge import Judge
from reward.problem import MalformedProblem, parse_problem
from reward.submission import program_in
from reward.verdict import JudgeResult

MAX_BODY_BYTES = 64 << 20
MAX_HELD_BYTES = 1 << 30
"""Of bodies of requests that wait or run, whatever their number."""

_RETRY_AFTER_S = 1
Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class Service:
    """Handlers over one judge. Belongs to one event loop."""

    def __init__(self, judge: Judge, max_queue: int) -> None:
        self.judge = judge
        self.max_queue = max_queue
        self.waiting = self.held_bytes = 0
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "judge_requests", "Requests answered", ["route", "status"], registry=self.registry
        )
        self.verdicts = Counter(
            "judge_verdicts", "Verdicts given", ["verdict"], registry=self.registry
        )
        self.seconds = Histogram(
            "judge_request_seconds",
            "Time of a request with its wait",
            ["route"],
            registry=self.registry,
        )
        queue = Gauge("judge_queue", "Requests waiting or running", registry=self.registry)
        queue.set_function(lambda: self.waiting)
        level = Gauge("judge_isolation_level", "Isolation, 0 to 3", registry=self.registry)
        level.set(int(judge.level))

    async def run_code(self, request: web.Request) -> web.Response:
        """SandboxFusion's `run_code`: run a program on one standard input."""
        return await self._answer(request, "run_code", self._run)

    async def submit(self, request: web.Request) -> web.Response:
        """SandboxFusion's `submit`: judge a completion on the tests given with it."""
        return await self._answer(request, "submit", self._submit)

    async def judge_program(self, request: web.Request) -> web.Response:
        """Judge `code`, or the program in `response`, on `problem`; the library's own result."""
        return await self._answer(request, "judge", self._judge)

    async def health(self, request: web.Request) -> web.Response:
        """Whether the judge answers, and how well it is isolated."""
        body = {"status": "ok", "level": int(self.judge.level), "queue": self.waiting}
        return web.json_response(body | {"max_queue": self.max_queue})

    async def ping(self, request: web.Request) -> web.Response:
        """What SandboxFusion's clients ask to see whether it is there."""
        return web.json_response("pong")

    async def metrics(self, request: web.Request) -> web.Response:
        """For Prometheus."""
        headers = {"Content-Type": CONTENT_TYPE_LATEST}
        return web.Response(body=latest(self.registry), headers=headers)

    async def _answer(self, request: web.Request, route: str, handle: Handler) -> web.Response:
        start = time.monotonic()
        response = await self._response(request, handle)
        self.requests.labels(route, str(response.status)).inc()
        self.seconds.labels(route).observe(time.monotonic() - start)
        return response

    async def _response(self, request: web.Request, handle: Handler) -> web.Response:
        size = MAX_BODY_BYTES if request.content_length is None else request.content_length
        if self.waiting >= self.max_queue or self.held_bytes + size > MAX_HELD_BYTES:
            headers = {"Retry-After": str(_RETRY_AFTER_S)}
            return _error(429, f"the queue is full ({self.waiting} requests)", headers)
        with self._place(size):
            try:
                body = await asyncio.to_thread(jsontext.loads, await request.read())
                if not isinstance(body, dict):
                    raise BadRequest("the body is not a JSON object")
                return web.json_response(await handle(body), dumps=jsontext.dumps)
            except (BadRequest, MalformedProblem, ValueError, RecursionError) as error:
                return _error(422, str(error))

    @contextmanager
    def _place(self, size: int) -> Iterator[None]:
        self.waiting += 1
        self.held_bytes += size
        try:
            yield
        finally:
            self.waiting -= 1
            self.held_bytes -= size

    async def _run(self, body: dict[str, Any]) -> dict[str, Any]:
        run = fusion.run_request(body, self.judge.config)
        execution = await asyncio.wrap_future(self.judge.run(run))
        return fusion.run_answer(execution)

    async def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        completion, record = fusion.submission(body)
        problem = await asyncio.to_thread(parse_problem, record)
        code = extract(completion, Extract(self.judge.config.extract))
        result = await self.judge.judge_async(problem, code)
        self.verdicts.labels(str(result.verdict)).inc()
        return fusion.submit_answer(body, code, result)

    async def _judge(self, body: dict[str, Any]) -> dict[str, Any]:
        record = body.get("problem")
        if not isinstance(record, dict):
            raise BadRequest("problem is missing: give a record in APPS or HumanEval form")
        code = program_in(body, Extract(self.judge.config.extract))
        problem = await asyncio.to_thread(parse_problem, record)
        result = await self.judge.judge_async(problem, code)
        self.verdicts.labels(str(result.verdict)).inc()
        return as_json(result)


def as_json(result: JudgeResult) -> dict[str, Any]:
    """A result without its tests' details."""
    return {
        "verdict": str(result.verdict),
        "passed": result.passed,
        "total": result.total,
        "score": result.score,
        "level": result.level,
        "seconds": result.seconds,
        "detail": result.detail,
        "judge_failed": result.judge_failed,
        "tests": [str(outcome.verdict) for outcome in result.outcomes],
    }


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": reason}, status=status, headers=headers)
