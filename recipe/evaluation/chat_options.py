"""Options of the chat template: those that the model was trained with, and those that are given.

A template may write other prompts by them, such as Qwen3's `enable_thinking`. Training passes
`data.apply_chat_template_kwargs` (verl); `publish` writes these beside the weights, so that the
evaluation asks as the training did.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.evaluation.errors import EvaluationError
from reward.config import parse_settings

PROVENANCE = "online_refiner.json"
"""In a published folder: checkpoint, run, hash of the weights, options of the chat template."""
CHAT_OPTIONS = "chat_options"
OWN = ("conversation", "tokenize", "add_generation_prompt")


def chat_options(model: str, words: Sequence[str]) -> dict[str, Any]:
    """The options of the training of `model`, a folder that `publish` wrote, and over them `words`,
    each KEY=VALUE.

    Raises:
        EvaluationError: a word that is no option, or an option that the evaluation itself sets.
    """
    for word in words:
        if not word.partition("=")[1]:
            raise EvaluationError(f"--chat-option {word!r}: write KEY=VALUE")
    given = parse_settings(words)
    for key in OWN:
        if key in given:
            raise EvaluationError(
                f"--chat-option {key}={given[key]}: the protocol decides it; leave it out"
            )
    return trained_with(model) | dict(given)


def trained_with(model: str) -> dict[str, Any]:
    """The options that `publish` has written into the model's folder; none if it has not."""
    try:
        content = json.loads((Path(model).expanduser() / PROVENANCE).read_text(encoding="utf-8"))
        return dict(content.get(CHAT_OPTIONS) or {})
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def in_words(options: Mapping[str, Any]) -> str:
    """The options as they are given on a command line."""
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in options.items())
