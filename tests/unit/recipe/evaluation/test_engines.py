"""The endpoint engine against a real server on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recipe.evaluation import engines
from recipe.evaluation.engines import EndpointEngine, check_model
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.generate import Request

Reply = tuple[int, bytes]


class Server:
    """Answers each request by a function of its body; keeps bodies and headers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Callable[[dict[str, Any]], Reply] = lambda body: _answer(body["prompt"])
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.bodies.append(body | {"path": self.path})
                owner.keys.append(self.headers["Authorization"])
                status, content = owner.reply(body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


def _answer(text: str) -> Reply:
    choice = {"text": text.upper(), "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice]}).encode()


def _request(number: int, special_tokens: bool = True) -> Request:
    return Request(f"p{number}", 0, f"text {number}", special_tokens, ("\n#",), 64, 0.5, 0.9, 7)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(engines, "_BACK_OFF_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_every_request_is_answered_with_its_own_answer(server: Server) -> None:
    engine = EndpointEngine(server.url, "m", None, concurrency=3)
    found = list(engine.generate([_request(number) for number in range(20)]))
    assert sorted(request.problem_id for request, _ in found) == sorted(
        f"p{number}" for number in range(20)
    )
    for request, completion in found:
        assert (completion.text, completion.finish) == (request.text.upper(), "stop")


def test_the_body_is_that_of_openais_completions(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    list(EndpointEngine(server.url, "m", None).generate([_request(1)]))
    assert server.bodies == [
        {
            "path": "/v1/completions",
            "model": "m",
            "prompt": "text 1",
            "max_tokens": 64,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["\n#"],
            "seed": 7,
        }
    ]
    assert server.keys == ["Bearer abc"]


def test_a_rendered_chat_tells_the_server_to_add_no_special_tokens(server: Server) -> None:
    list(EndpointEngine(server.url, "m", None).generate([_request(1, special_tokens=False)]))
    assert server.bodies[0]["add_special_tokens"] is False
    assert server.keys == [None]


def test_a_busy_server_is_asked_again(server: Server) -> None:
    replies = [(503, b"busy"), (429, b"slow down"), _answer("done")]
    server.reply = lambda body: replies.pop(0)
    ((_, completion),) = EndpointEngine(server.url, "m", None).generate([_request(1)])
    assert completion.text == "DONE"


@pytest.mark.parametrize(
    ("reply", "asked", "message"),
    [
        ((404, b"no model m"), 1, "status 404: no model m"),
        ((500, b"broken"), 4, "status 500: broken"),
        ((200, b"{}"), 1, "without choices"),
        ((200, b"<html>"), 4, "Expecting value"),
    ],
)
def test_a_server_that_refuses_ends_it_with_the_reason(
    server: Server, reply: Reply, asked: int, message: str
) -> None:
    server.reply = lambda body: reply
    with pytest.raises(EvaluationError, match=message):
        list(EndpointEngine(server.url, "m", None).generate([_request(1)]))
    assert len(server.bodies) == asked


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"not a URL; write http://HOST:PORT/v1"):
        EndpointEngine("localhost:8000", "m", None)


def test_a_folder_without_a_model_is_refused_and_a_hub_name_is_not(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no folder with a config\.json"):
        check_model(str(tmp_path))
    with pytest.raises(EvaluationError, match=r"no folder with a config\.json"):
        check_model("./absent")
    check_model("Qwen/Qwen2.5-Coder-1.5B-Instruct")
