"""What the refiner is asked, and how its output is read back.

A template is a YAML file with `name`, `version`, `system` (or null), `user`, and optionally
`answer_open` and `answer_close`, and `task`, the kind of problem that it is for. `user` holds
`{problem}` and `{answer}`, and `{before}` if responses are refined block by block (the part of the
refinement written already), and `{feedback}` if the refiner is told what the judge said. They are
replaced literally, in one pass, since problems and programs hold braces of their own. The built-in
templates are our reconstructions from the method's description ("repeat what is right, change only
what is wrong"): the wording of arXiv 2603.18088, appendix A.3, was not available.

The refiner's output is meant to be, token for token, what the policy would have written: no
greeting, no label. So `parse_refinement` changes nothing, except that it takes off the template's
own answer marks if the refiner echoes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

Message = dict[str, str]

PLACEHOLDERS = ("{problem}", "{answer}")
BEFORE, FEEDBACK = "{before}", "{feedback}"
"""Placeholders of templates for `refiner.block_tokens` and for `refiner.feedback`."""
_PLACEHOLDER = re.compile("|".join(map(re.escape, (*PLACEHOLDERS, BEFORE, FEEDBACK))))
_KEYS = ("name", "version", "system", "user", "answer_open", "answer_close", "task")


@dataclass(frozen=True)
class RefineTemplate:
    """A refinement prompt; `answer_open` and `answer_close` mark the answer within `user`.

    `task` is what the reward that it is for says of itself (`code`, `mathematics`, `dialogue`);
    empty for any.
    """

    name: str
    version: int
    system: str | None
    user: str
    answer_open: str = ""
    answer_close: str = ""
    task: str = ""

    def __post_init__(self) -> None:
        missing = [p for p in PLACEHOLDERS if p not in self.user]
        if missing:
            raise ValueError(
                f"template {self.name!r}: `user` lacks {' and '.join(missing)}; "
                "it must show the refiner both the problem and the response"
            )
        if bool(self.answer_open) != bool(self.answer_close):
            raise ValueError(
                f"template {self.name!r}: give both `answer_open` and `answer_close`, or neither"
            )

    def takes(self, placeholder: str) -> bool:
        """Whether the refiner is shown what stands for `placeholder`."""
        return placeholder in self.user


def builtin_templates() -> list[str]:
    """Names of the templates that come with the package, sorted."""
    folder = resources.files("refiner_worker") / "templates"
    return sorted(
        f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
    )


def load_template(name_or_path: str | Path) -> RefineTemplate:
    """A built-in template by name, or any other by the path of its YAML file.

    Raises ValueError naming the options for an unknown name, FileNotFoundError for a path without
    a file."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        return _template_from_file(Path(text))
    if text not in builtin_templates():
        raise ValueError(
            f"refiner template {text!r} is unknown; built in: {', '.join(builtin_templates())}; "
            "or give the path of a .yaml file"
        )
    source = resources.files("refiner_worker") / "templates" / f"{text}.yaml"
    return _parse(source.read_text(encoding="utf-8"), text)


def render(
    template: RefineTemplate,
    prompt_messages: Sequence[Mapping[str, Any]],
    answer: str,
    before: str = "",
    feedback: str = "",
) -> list[Message]:
    """Messages for `tokenizer.apply_chat_template(..., add_generation_prompt=True)`.

    Args:
        prompt_messages: the policy's own prompt (s0).
        answer: its answer without the end-of-sequence token, or one block of it.
        before: what has been refined so far; empty if the response is refined in one piece.
        feedback: the verdict on the response, in words.
    """
    values = {
        "{problem}": problem_text(prompt_messages),
        "{answer}": answer,
        BEFORE: before,
        FEEDBACK: feedback,
    }
    user = _PLACEHOLDER.sub(lambda match: values[match.group()], template.user)
    messages = [{"role": "user", "content": user}]
    if template.system is not None:
        messages.insert(0, {"role": "system", "content": template.system})
    return messages


def problem_text(prompt_messages: Sequence[Mapping[str, Any]]) -> str:
    """The policy's prompt as one text: a lone message's content, else all under their roles."""
    if not prompt_messages:
        raise ValueError("the prompt has no messages, so there is nothing to refine against")
    texts = [_content_text(message) for message in prompt_messages]
    if len(texts) == 1:
        return texts[0]
    roles = [str(message["role"]).capitalize() for message in prompt_messages]
    return "\n\n".join(f"{role}: {text}" for role, text in zip(roles, texts, strict=True))


def parse_refinement(template: RefineTemplate, text: str) -> str:
    """The refined response in `text`, decoded without special tokens, as the policy would write.

    If the refiner echoes the template's answer marks, what is between the first opening and the
    last closing one is taken (a response cut off by the length limit has no closing mark).
    Anything else is returned untouched.
    """
    opening = template.answer_open.strip()
    if not opening or not text.lstrip().startswith(opening):
        return text
    body = text.lstrip()[len(opening) :].removeprefix("\n")
    before, closing, _ = body.rpartition(template.answer_close.strip())
    return before.removesuffix("\n") if closing else body


def _template_from_file(path: Path) -> RefineTemplate:
    if not path.is_file():
        raise FileNotFoundError(
            f"refiner template file {path} does not exist; "
            f"built in: {', '.join(builtin_templates())}"
        )
    return _parse(path.read_text(encoding="utf-8"), str(path))


def _parse(text: str, origin: str) -> RefineTemplate:
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"refiner template {origin}: not valid YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"refiner template {origin}: expected a mapping with {', '.join(_KEYS)}")
    unknown = sorted(set(map(str, fields)) - set(_KEYS))
    missing = [key for key in ("name", "version", "user") if fields.get(key) is None]
    if unknown or missing:
        raise ValueError(
            f"refiner template {origin}: unknown keys {unknown}, missing keys {missing}; "
            f"the keys are {', '.join(_KEYS)}"
        )
    return _from_fields(fields, origin)


def _from_fields(fields: dict[str, Any], origin: str) -> RefineTemplate:
    texts = {key: fields.get(key) for key in _KEYS if key != "version"}
    for key, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"refiner template {origin}: `{key}` must be text, got {value!r}")
    version = fields["version"]
    if isinstance(version, bool) or not isinstance(version, int):
        raise ValueError(
            f"refiner template {origin}: `version` must be a whole number, not {version!r}"
        )
    return RefineTemplate(
        name=fields["name"],
        version=version,
        system=fields.get("system"),
        user=fields["user"],
        answer_open=fields.get("answer_open") or "",
        answer_close=fields.get("answer_close") or "",
        task=fields.get("task") or "",
    )


def _content_text(message: Mapping[str, Any]) -> str:
    """The text of one chat message; content may be a string or a list of text parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise ValueError(f"only text can be refined; a message holds {content!r:.80}")
