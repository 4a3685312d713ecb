"""The endpoint engine against a real server on this machine, well-behaved and not."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from recipe.evaluation.endpoint import EndpointEngine
from recipe.evaluation.errors import EvaluationError, Unanswered
from recipe.evaluation.generate import Completion, Request
from recipe.evaluation.patience import Patience
from recipe.evaluation.session import MAX_STOP_STRINGS

QUICK = Patience(attempt_s=20.0, total_s=30.0, first_wait_s=0.001)
SHORT = Patience(attempt_s=0.2, total_s=0.4, first_wait_s=0.001)
TOO_LONG = (
    "This model's maximum context length is 100 tokens. However, you requested {} output tokens "
    "and your prompt contains {} input tokens"
)
Script = Iterable[Any]


def request(number: int = 1, special_tokens: bool = True, max_tokens: int = 64) -> Request:
    stop = ("\n#", "\na", "\nb", "\nc", "\nd")
    text = f"text {number}"
    return Request(f"p{number}", 0, text, special_tokens, stop, max_tokens, 0.5, 0.9, 7)


def engine(server: Any, patience: Patience = QUICK, concurrency: int = 3) -> EndpointEngine:
    return EndpointEngine(server.url, "m", None, concurrency=concurrency, patience=patience)


def scripted(replies: Script, then: Any) -> Callable[[dict[str, Any]], Any]:
    """Gives `replies` one after the other, and `then` ever after."""
    left = list(replies)
    return lambda body: left.pop(0) if left else then


def only(server: Any, patience: Patience = QUICK) -> Completion:
    ((_, completion),) = engine(server, patience).generate([request()])
    return completion


def test_every_request_is_answered_with_its_own_response(server: Any) -> None:
    found = list(engine(server).generate([request(number) for number in range(20)]))
    assert sorted(request.problem_id for request, _ in found) == sorted(
        f"p{number}" for number in range(20)
    )
    for asked, completion in found:
        assert (completion.text, completion.finish) == (asked.text.upper(), "stop")


def test_every_sampling_parameter_is_sent_and_at_most_four_stop_strings(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abc")
    only(server)
    assert server.bodies == [
        {
            "path": "/v1/completions",
            "key": "Bearer abc",
            "model": "m",
            "prompt": "text 1",
            "max_tokens": 64,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop": ["\n#", "\na", "\nb", "\nc"],
            "seed": 7,
        }
    ]
    assert MAX_STOP_STRINGS == 4


def test_a_rendered_chat_tells_the_server_to_add_no_special_tokens(server: Any) -> None:
    list(engine(server).generate([request(special_tokens=False)]))
    assert server.bodies[0]["add_special_tokens"] is False
    assert server.bodies[0]["key"] is None


def test_a_server_that_fails_for_a_while_is_asked_again(
    server: Any, fake_reply: Any, ends: Any
) -> None:
    whole = fake_reply.of("done", "length", completion_tokens=64, prompt_tokens=3)
    failures = [
        fake_reply.error(503, "busy"),
        fake_reply.error(429, "slow down", Retry_After="0.01"),
        fake_reply.error(500, "broken"),
        fake_reply(200, whole.body, ends=ends.CUT),
        fake_reply(200, whole.body[:20]),
        fake_reply.of(None),
        fake_reply.of("par", "abort"),
    ]
    server.reply = scripted(failures, whole)
    assert only(server) == Completion("done", "length", 64)
    assert len(server.bodies) == len(failures) + 1
    assert all(body == server.bodies[0] for body in server.bodies)


def test_a_stalled_request_is_given_up_and_sent_again(
    server: Any, fake_reply: Any, ends: Any
) -> None:
    server.reply = scripted([fake_reply(ends=ends.NEVER)], fake_reply.of("late"))
    patience = Patience(attempt_s=0.2, total_s=30.0, first_wait_s=0.001)
    assert only(server, patience).text == "late"


def test_a_wait_that_the_server_asks_for_is_kept_by_all_requests(
    server: Any, fake_reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("recipe.evaluation.session.asyncio.sleep", sleep)
    server.reply = scripted(
        [fake_reply.error(429, "slow down", Retry_After="20")], fake_reply.of("x")
    )
    found = list(engine(server, concurrency=1).generate([request(1), request(2)]))
    assert len(found) == 2
    # Before the first attempt, after it, and then both what is left of the 20 s.
    first, after, again, second = slept
    assert (first, after) == (0.0, 20.0)
    assert 10.0 < second <= again <= 20.0


@pytest.mark.parametrize(
    ("make", "asked", "message"),
    [
        (lambda reply: reply.error(401, "no key"), 1, "status 401: no key"),
        (lambda reply: reply.error(404, "no model m"), 1, "status 404: no model m; the server has"),
        (
            lambda reply: reply.error(500, "broken", Retry_After="1000"),  # longer than is waited
            1,
            r"no usable reply in \d+ s .status 500: broken.; what was generated",
        ),
        (lambda reply: reply(200, b"{}"), 3, r"without choices\[0\].text; is this OpenAI's"),
        (lambda reply: reply.of(None), 3, r"whose choices\[0\].text is null, not text"),
        (lambda reply: reply(200, b"<html>"), 3, "a reply that is no JSON or is cut off"),
    ],
)
def test_a_server_that_answers_nothing_ends_it_with_the_reason(
    make: Callable[[Any], Any], asked: int, message: str, server: Any, fake_reply: Any
) -> None:
    server.models = [{"id": "other"}]
    server.reply = lambda body: make(fake_reply)
    with pytest.raises(EvaluationError, match=message) as caught:
        only(server)
    assert not isinstance(caught.value, Unanswered)
    assert len(server.bodies) == asked


def test_a_wrong_model_name_is_told_which_there_are(server: Any, fake_reply: Any) -> None:
    server.models = [{"id": "tuned"}, {"id": "base"}]
    server.reply = lambda body: fake_reply.error(404, "The model `m` does not exist.")
    with pytest.raises(EvaluationError, match="the server has tuned, base: give one of these"):
        only(server)


def test_requests_that_are_refused_or_fail_leave_the_others_alone(
    server: Any, fake_reply: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    others_went_on = threading.Event()

    def reply(body: dict[str, Any]) -> Any:
        if body["prompt"] == "text 2":
            return fake_reply.error(400, "not such a prompt")
        if body["prompt"] == "text 4":
            others_went_on.wait()
            return fake_reply.of(None)
        if body["prompt"] == "text 12":
            others_went_on.set()
        return fake_reply.of("good")

    server.reply = reply
    found = []
    with pytest.raises(Unanswered, match=r"2 of 20 responses are missing .p[24]: ") as caught:
        for asked, _ in engine(server).generate([request(n) for n in range(20)]):
            found.append(asked.problem_id)
    assert set(found) == {f"p{n}" for n in range(20)} - {"p2", "p4"}
    assert "the same command asks for what is missing" in str(caught.value)
    assert capsys.readouterr().err.count("is null, not text") == 1  # said once of two attempts


def test_a_server_that_refuses_every_request_is_not_asked_for_all(
    server: Any, fake_reply: Any
) -> None:
    server.reply = lambda body: fake_reply.error(400, "unknown parameter top_k")
    with pytest.raises(EvaluationError, match="unknown parameter top_k") as caught:
        list(engine(server, concurrency=1).generate([request(n) for n in range(20)]))
    assert not isinstance(caught.value, Unanswered)
    assert len(server.bodies) == 3


def context_of_100(fake_reply: Any, prompt_tokens: int) -> Callable[[dict[str, Any]], Any]:
    """As vLLM: refuses what prompt and response together have no room for."""

    def reply(body: dict[str, Any]) -> Any:
        asked = body["max_tokens"]
        if prompt_tokens + asked > 100:
            return fake_reply.error(400, TOO_LONG.format(asked, prompt_tokens))
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": asked}
        return fake_reply.of("x" * asked, "length", **usage)

    return reply


@pytest.mark.parametrize(
    ("prompt_tokens", "expected"),
    [
        (36, Completion("x" * 64, "length", 64)),
        (60, Completion("x" * 40, "length", 40)),  # until the context is full
        (99, Completion("x", "length", 1)),
        (100, Completion("", "prompt_too_long", 0)),
    ],
)
def test_a_response_gets_the_room_that_the_prompt_leaves(
    prompt_tokens: int, expected: Completion, server: Any, fake_reply: Any
) -> None:
    server.reply = context_of_100(fake_reply, prompt_tokens)
    assert only(server) == expected


@pytest.mark.parametrize(
    "message",
    [
        TOO_LONG.format(1, 200),
        "Input length (200) exceeds model's maximum context length (100).",
        "The input (200 tokens) is longer than the model's context length (100 tokens).",
        "the request exceeds the available context size (100 tokens), try increasing it",
        "The decoder prompt (length 200) is longer than the maximum model length of 100.",
    ],
)
def test_a_prompt_that_is_too_long_is_known_by_the_words_of_each_server(
    message: str, server: Any, fake_reply: Any
) -> None:
    server.reply = lambda body: fake_reply.error(400, message)
    assert only(server).finish == "prompt_too_long"


def test_no_room_and_an_unknown_context_is_said(server: Any, fake_reply: Any) -> None:
    server.models = []
    server.reply = context_of_100(fake_reply, 60)
    with pytest.raises(Unanswered, match=r"no room for 64 tokens.*give a smaller --max-tokens"):
        only(server)


def test_a_server_that_caps_responses_is_refused(server: Any, fake_reply: Any) -> None:
    server.reply = lambda body: fake_reply.of(
        "x" * 16, "length", prompt_tokens=10, completion_tokens=16
    )
    with pytest.raises(
        EvaluationError, match=r"after 16 tokens, not after the 64.*--generation-config vllm"
    ):
        only(server)


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"not a URL; write http://HOST:PORT/v1"):
        EndpointEngine("localhost:8000", "m", None)


def test_a_server_that_is_not_there_is_waited_for_as_long_as_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = EndpointEngine("http://127.0.0.1:9/v1", "m", None, patience=SHORT)
    with pytest.raises(EvaluationError, match=r"no usable reply in .*ConnectError.*--retry-for"):
        list(absent.generate([request()]))
    assert "asking again, for up to 0 s a response (--retry-for)" in capsys.readouterr().err
