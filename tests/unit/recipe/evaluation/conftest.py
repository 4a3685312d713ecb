"""Small benchmarks as files, an engine that answers from a table, and a server that misbehaves."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation.generate import Completion, Request
from recipe.evaluation.protocols import Prompt

HUMANEVAL = {
    "task_id": "HumanEval/7",
    "prompt": '\n\ndef add(a, b):\n    """Add.\n    >>> add(1, 2)\n    3\n    """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(0, 4) == 4\n",
}
MBPP = {
    "task_id": 9,
    "text": "Write a function to double a number.",
    "code": "def helper(x):\r\n  return x\r\ndef double(x):\r\n  return helper(x) * 2",
    "test_list": ["assert double(2) == 4", "assert double(-1) == -2"],
    "test_setup_code": "",
}
APPS = {
    "data_source": "micro_apps",
    "prompt": [{"role": "user", "content": "Print twice the number."}],
    "ability": "code",
    "reward_model": {
        "style": "rule",
        "ground_truth": json.dumps({"inputs": ["2\n", "5\n"], "outputs": ["4\n", "10\n"]}),
    },
    "extra_info": {
        "index": 0,
        "problem_id": "0003",
        "split": "test",
        "difficulty": "interview",
        "starter_code": "",
        "reference_solution": "print(2 * int(input()))\n",
    },
}


class TableEngine:
    """Answers each problem's samples with the texts of a table; `limit` answers, then it dies."""

    name = "table"

    def __init__(
        self,
        answers: Mapping[str, Sequence[str]],
        limit: int = 10**9,
        weights: str | None = "weights of m",
    ) -> None:
        self.answers, self.limit, self.digest = answers, limit, weights
        self.asked: list[tuple[str, int]] = []

    def weights(self) -> str | None:
        return self.digest

    def render(self, prompt: Prompt) -> tuple[str, bool]:
        return prompt.text or prompt.messages[-1].content + prompt.opening, not prompt.messages

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Completion]]:
        for request in requests:
            if len(self.asked) == self.limit:
                raise KeyboardInterrupt
            self.asked.append((request.problem_id, request.sample))
            text = self.answers[request.problem_id][request.sample]
            yield request, Completion(text, "stop", len(text))


class Ends(Enum):
    """How a reply's body ends."""

    WHOLE = "whole"
    CUT = "cut"  # the connection closes before the length that the header promised
    NEVER = "never"  # nothing is sent until the test is over


@dataclass(frozen=True)
class FakeReply:
    """A reply of `FakeServer`."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ends: Ends = Ends.WHOLE

    @classmethod
    def of(cls, text: Any, finish: Any = "stop", **usage: int) -> "FakeReply":
        """A reply in the form of OpenAI's completions."""
        content = {"choices": [{"text": text, "finish_reason": finish}], "usage": usage}
        return cls(body=json.dumps(content).encode())

    @classmethod
    def error(cls, status: int, message: str, **headers: str) -> "FakeReply":
        """A refusal in vLLM's form."""
        content = {"error": {"message": message, "type": "BadRequestError", "code": status}}
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(content).encode(), names)


class FakeServer:
    """A completions server on loopback whose replies are a function of the request's body.

    Attributes:
        bodies: of the requests so far, each with its `path` and `key`.
        reply: gives the reply to a body. Unless it is set, a prompt comes back in capitals.
        models: what `/v1/models` lists.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.reply: Callable[[dict[str, Any]], FakeReply] = lambda body: FakeReply.of(
            body["prompt"].upper()
        )
        self.models: list[dict[str, Any]] = [{"id": "m", "max_model_len": 100}]
        self.over = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(FakeReply(body=json.dumps({"data": owner.models}).encode()))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = self.headers["Authorization"]
                owner.bodies.append(body | {"path": self.path, "key": key})
                self._send(owner.reply(body))

            def _send(self, reply: FakeReply) -> None:
                if reply.ends == Ends.NEVER:
                    owner.over.wait()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                cut = 7 * (reply.ends == Ends.CUT)
                self.send_header("Content-Length", str(len(reply.body) + cut))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def fake_reply() -> type[FakeReply]:
    return FakeReply


@pytest.fixture
def ends() -> type[Ends]:
    return Ends


@pytest.fixture
def table_engine() -> type[TableEngine]:
    return TableEngine


@pytest.fixture
def samples() -> dict[str, dict[str, Any]]:
    """One record of each form."""
    return {"humaneval": HUMANEVAL, "mbpp": MBPP, "apps": APPS}


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Writes records as JSON lines, packed where the name says so, and returns the path."""

    def write(name: str, *records: object) -> Path:
        text = "".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in records)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write
