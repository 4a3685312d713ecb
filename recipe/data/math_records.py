"""One mathematical problem, from raw record to a row of verl's dataset, or why not. Pure.

Three forms of a record are read, which are those that the public editions come in:

    DAPO-Math-17k, AIME-2024   prompt: messages, reward_model.ground_truth, extra_info.index
    deduplicated editions      prompt: text, solution
    AIME                       problem, answer, id (or with capitals)

A problem in messages is asked as it stands, a bare one in our words; both ask for a last line
`Answer: …`, which verl's scorer `math_dapo` looks for. Answers are whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from recipe.data.rows import Malformed, is_encodable, readable_name, row_schema
from recipe.data.sources import Item, Unreadable

SCHEMA = row_schema()
MARK = "Answer:"
"""What the scorer looks for. Paragraphs with it say how to answer, and are no part of the problem.
"""
ASK = (
    "{problem}\n\nReason step by step. End with one line that reads `Answer: N`, where N is the "
    "result as a whole number."
)
MAX_ANSWER_DIGITS = 40
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)

Message = dict[str, str]


@dataclass(frozen=True)
class MathProblem:
    """A usable record.

    Attributes:
        name: the record's own, or its place in the source. messages: what the policy is asked.
        answer: a whole number in its shortest form. text: the problem alone.
    """

    name: str
    messages: list[Message]
    answer: str
    text: str

    @property
    def key(self) -> bytes:
        """Equal for problems that differ in nothing but blanks and in how to answer."""
        return digest(" ".join(self.text.split()))


def digest(text: str) -> bytes:
    """Enough of a hash to tell texts apart, in few bytes."""
    return blake2b(text.encode(), digest_size=12).digest()


def to_problem(item: Item, place: int, max_chars: int) -> MathProblem:
    """The problem of one record. Raises Malformed with the reason."""
    if isinstance(item, Unreadable):
        raise Malformed(item.reason)
    messages = _messages(_first(item, "prompt", "problem", "question"), max_chars)
    text = problem_text(messages[-1]["content"])
    if not text:
        raise Malformed("the prompt says how to answer and holds no problem")
    return MathProblem(name_of(item, place), messages, _answer(item), text)


def name_of(item: Item, place: int) -> str:
    """The record's own name, or its place in the source if it has none."""
    if isinstance(item, Unreadable):
        return item.problem_id
    info = item.get("extra_info")
    own = info.get("index") if isinstance(info, Mapping) else None
    own = _first(item, "id") if own is None else own
    return readable_name(own if isinstance(own, str | int) and own != "" else place)


def problem_text(content: str) -> str:
    """The content without leading and closing paragraphs that say how to answer."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", content.strip())]
    if len(paragraphs) > 1 and MARK in paragraphs[0]:
        paragraphs = paragraphs[1:]
    if paragraphs and MARK in paragraphs[-1]:
        paragraphs = paragraphs[:-1]
    return "\n\n".join(paragraphs).strip()


def to_row(problem: MathProblem, data_source: str, split: str, index: int) -> dict[str, Any]:
    """The dataset row of one problem."""
    return {
        "data_source": data_source,
        "prompt": problem.messages,
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": problem.answer},
        "extra_info": {"index": index, "problem_id": problem.name, "split": split},
    }


def _first(item: Mapping[str, Any], *names: str) -> Any:
    """The first of these columns that is there, in either spelling."""
    for name in names:
        for spelling in (name, name.capitalize(), name.upper()):
            if item.get(spelling) is not None:
                return item[spelling]
    return None


def _messages(value: Any, max_chars: int) -> list[Message]:
    if isinstance(value, str):
        content = _content("the problem", value, max_chars)
        asked = content if MARK in content else ASK.format(problem=content)
        return [{"role": "user", "content": asked}]
    if not isinstance(value, list):
        raise Malformed(f"the prompt is {_kind(value)}, neither text nor a list of messages")
    if not value:
        raise Malformed("the prompt has no messages")
    messages = [_message(number, message, max_chars) for number, message in enumerate(value)]
    roles = [message["role"] for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise Malformed(f"the prompt's messages are by {', '.join(roles)}, not one of a user")
    if MARK not in messages[-1]["content"]:
        messages[-1]["content"] = ASK.format(problem=messages[-1]["content"])
    return messages


def _message(number: int, value: Any, max_chars: int) -> Message:
    if not isinstance(value, Mapping):
        raise Malformed(f"message {number} is {_kind(value)}, not an object")
    role = value.get("role")
    if role not in ("system", "user", "assistant"):
        raise Malformed(f"message {number} has the role {role!r:.40}")
    content = _content(f"the content of message {number}", value.get("content"), max_chars)
    return {"role": role, "content": content}


def _content(what: str, value: Any, max_chars: int) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{what} is {_kind(value)}, not text")
    if not value.strip():
        raise Malformed(f"{what} is empty")
    if not is_encodable(value):
        raise Malformed(f"{what} holds half a character (a lone surrogate)")
    if len(value) > max_chars:
        raise Malformed(f"{what} has {len(value)} characters, over {max_chars}")
    return value


def _answer(item: Mapping[str, Any]) -> str:
    """The expected answer in its shortest form: 33 for 033, 33.0 and " 33 "."""
    value = _first(item, "answer", "solution")
    if "reward_model" in item:
        section = item["reward_model"]
        if not isinstance(section, Mapping):
            raise Malformed(f"reward_model is {_kind(section)}, not an object")
        value = section.get("ground_truth")
    if value is None:
        raise Malformed("no answer: neither reward_model.ground_truth, nor answer, nor solution")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Malformed(f"the answer is {_kind(value)}, not a number")
    text = str(value).strip()
    if not _WHOLE.fullmatch(text):
        raise Malformed(f"the answer {readable_name(text)!r:.40} is not a whole number")
    if len(text) > MAX_ANSWER_DIGITS:
        raise Malformed(f"the answer has {len(text)} characters, over {MAX_ANSWER_DIGITS}")
    return str(int(text.partition(".")[0]))


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of type {type(value).__name__}"
