"""The policy's chats in a run, from its tokenizer, its generation config and the run's options."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from omegaconf import DictConfig, OmegaConf
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from recipe.online_refiner.resolve.refiner_engine import end_ids
from refiner_worker.chat import Chat


class TemplateFault(ValueError):
    """A chat template that does not compile, or writes no chat; the message says why."""


def chat_options(config: DictConfig) -> dict[str, Any]:
    """`data.apply_chat_template_kwargs`, by which verl writes the policy's prompts."""
    options = config.data.get("apply_chat_template_kwargs") or {}
    plain = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def tokenizer_path(config: DictConfig) -> str:
    """Where the policy's tokenizer is."""
    model = config.actor_rollout_ref.model
    return str(model.tokenizer_path or model.path)


def policy_tokenizer(config: DictConfig) -> PreTrainedTokenizerBase:
    """The policy's tokenizer with the chat template that the run uses."""
    custom = config.actor_rollout_ref.model.get("custom_chat_template")
    return tokenizer_at(tokenizer_path(config), custom)


def tokenizer_at(path: str, chat_template: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer at a path or hub id, with this chat template in place of its own, if any."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def policy_chat(
    config: DictConfig, tokenizer: PreTrainedTokenizerBase, model_path: str | None = None
) -> Chat:
    """How the policy's chats are written.

    Args:
        tokenizer: the policy's, with its chat template.
        model_path: the model's folder on this machine; None for the one in the configuration.

    Raises ValueError if the model has no end token, or TemplateFault if its template fails.
    """
    path = model_path or str(config.actor_rollout_ref.model.path)
    try:
        return Chat.of(tokenizer, chat_options(config), end_ids(path))
    except TemplateError as error:
        raise TemplateFault(f"its chat template fails ({error})") from error
