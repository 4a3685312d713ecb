"""What a completions server's replies mean. Pure.

| reply | means |
|---|---|
| 200 with `choices[0].text` | a response |
| 200 without it, an aborted response, a body that is cut off | failed: asked again |
| 400 that speaks of the context's length | the prompt, or prompt and response, do not fit |
| 401, 403, 404, 405 | refused, and so would be every other request |
| 408, 425, 429, 5xx | failed: asked again, after `Retry-After` |
| any other | this request is refused |
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.patience import retry_after_s

_OF_THE_SERVER = frozenset({401, 403, 404, 405})
_PASSING = frozenset({408, 425, 429})
_TOO_LONG = re.compile(
    r"context[ _-]?(length|size|window)|maximum model length|max_model_len"
    r"|exceed_context_size|(prompt|input)\b.{0,40}\b(is|are) (too long|longer)",
    re.IGNORECASE,
)
_UNFINISHED = frozenset({"abort", "error"})


class Failed(Exception):
    """A request without a usable reply; it may be sent again after `wait_s`."""

    def __init__(
        self,
        reason: str,
        *,
        wait_s: float = 0.0,
        malformed: bool = False,
        timed_out: bool = False,
    ) -> None:
        super().__init__(reason)
        self.wait_s, self.malformed, self.timed_out = wait_s, malformed, timed_out


class Refused(Failed):
    """A request that the server will not take. `final`: it would take no other either."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True)
class Reply:
    """A response, or, if `too_long`, that there is no room for one of that length."""

    text: str = ""
    finish: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    too_long: bool = False


@dataclass(frozen=True)
class Served:
    """What `/v1/models` says: the names, and the context of the model that is asked, in tokens."""

    names: tuple[str, ...] = ()
    context: int | None = None

    def hint(self, model: str) -> str:
        """Which models there are, if `model` is none of them."""
        if not self.names or model in self.names:
            return ""
        return f"; the server has {', '.join(self.names)}: give one of these as --model"


def read_served(content: Any, model: str) -> Served:
    """The models of a list in OpenAI's form; nothing of one in another form."""
    found = content.get("data") if isinstance(content, Mapping) else None
    entries = [entry for entry in found or () if isinstance(entry, Mapping) and "id" in entry]
    lengths = [entry.get("max_model_len") for entry in entries if entry["id"] == model]
    context = lengths[0] if lengths and isinstance(lengths[0], int) else None
    return Served(tuple(str(entry["id"]) for entry in entries), context)


def read_reply(status: int, retry_after: str | None, body: bytes) -> Reply:
    """The reply's meaning, see the table above.

    Raises:
        Failed, Refused: it holds no response.
    """
    text = body.decode(errors="replace")
    if status == 200:
        return _response(text)
    reason = f"status {status}: {_message(text)}"
    if status in _PASSING or status >= 500:
        raise Failed(reason, wait_s=retry_after_s(retry_after))
    if status in (400, 413, 422) and _TOO_LONG.search(text):
        return Reply(too_long=True)
    raise Refused(reason, final=status in _OF_THE_SERVER)


def check_cap(reply: Reply, asked: int, served: Served, url: str) -> None:
    """Refuse a server that ends responses before what was asked for and before its context.

    Raises:
        EvaluationError: so it is, mostly by `max_new_tokens` of generation_config.json, which a
            request cannot change.
    """
    if reply.finish != "length" or None in (reply.tokens, reply.prompt_tokens, served.context):
        return
    assert reply.tokens is not None and reply.prompt_tokens is not None
    assert served.context is not None
    room = served.context - reply.prompt_tokens
    if reply.tokens < min(asked, room):
        raise EvaluationError(
            f"--endpoint {url}: it ends responses after {reply.tokens} tokens, not "
            f"after the {asked} asked for, as max_new_tokens of the model's generation_config.json "
            "makes it; start vLLM with --generation-config vllm"
        )


def _response(text: str) -> Reply:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise Failed(f"a reply that is no JSON or is cut off ({error})", malformed=True) from error
    try:
        choice = content["choices"][0]
        response, finish = choice["text"], choice.get("finish_reason") or ""
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _malformed("without choices[0].text") from error
    if not isinstance(response, str):
        raise _malformed(f"whose choices[0].text is {json.dumps(response)[:40]}, not text")
    if finish in _UNFINISHED:
        raise Failed(f"a response that the server broke off (finish_reason {finish})")
    usage = content.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    return Reply(response, str(finish), _count(usage, "completion"), _count(usage, "prompt"))


def _malformed(what: str) -> Failed:
    reason = f"a reply {what}; is this OpenAI's completions interface?"
    return Failed(reason, malformed=True)


def _count(usage: Mapping[str, Any], what: str) -> int | None:
    value = usage.get(f"{what}_tokens")
    return value if isinstance(value, int) else None


def _message(text: str) -> str:
    """The error's own words, of any of the usual forms."""
    try:
        content = json.loads(text)
    except ValueError:
        return text.strip()
    for part in (content.get("error"), content) if isinstance(content, dict) else ():
        if isinstance(part, Mapping) and isinstance(part.get("message"), str):
            return str(part["message"])
    return text.strip()
