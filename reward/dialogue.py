"""verl's `compute_score` for dialogue: a reward model that is served on GPUs of its own.

reward.custom_reward_function.path=pkg://reward.dialogue, with these `reward_kwargs`:
    engine: vllm or sglang, which serves the model
    model: its name, reward.reward_model.model_path
verl adds the router's address and the reward model's tokenizer where `reward.reward_model.enable`.

verl's own path for served classifiers drops a field that its agent loop reads (verl issue 7368), so
the server is asked here. The function is not given the prompt: `extra_info.conversation` holds it,
as JSON; `recipe.data.prompt_collection` writes it.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from reward.traits import Inspection, RewardTraits

ENGINES = ("vllm", "sglang")


def setting_faults(
    engine: Any = ENGINES[0],
    scale: float = 1.0,
    timeout_s: float = 60.0,
    retries: int = 2,
    max_repetition: float = 0.5,
    **others: Any,
) -> list[str]:
    """Sentences on values that cannot be; types and names are for the caller to check."""
    found = []
    if engine not in ENGINES:
        found.append(f"engine={engine!r}: use one of {', '.join(ENGINES)}")
    if not scale > 0:
        found.append(f"scale={scale}: use a number above zero")
    if not timeout_s > 0:
        found.append(f"timeout_s={timeout_s}: use a number of seconds above zero")
    if retries < 0:
        found.append(f"retries={retries}: use zero or more")
    if not 0 <= max_repetition <= 1:
        found.append(f"max_repetition={max_repetition}: use a share of 0 to 1")
    return found


def inspect_settings(settings: Mapping[str, Any]) -> Inspection:
    """What the settings lack; values of a wrong type are told apart before."""
    try:
        return Inspection(tuple(setting_faults(**settings)))
    except TypeError:
        return Inspection()  # a number that is none: the settings' types are checked elsewhere


def row_fault(row: Mapping[str, Any]) -> str:
    """Why a row's answers cannot be scored; empty if they can."""
    conversation = (row.get("extra_info") or {}).get("conversation")
    if not isinstance(conversation, str) or not conversation:
        return "extra_info.conversation is missing"
    try:
        messages = json.loads(conversation)
    except ValueError:
        return "extra_info.conversation is no JSON"
    return "" if isinstance(messages, list) else "extra_info.conversation is no list of messages"


TRAITS = RewardTraits(
    asks_reward_model=True,
    asks_classifier=True,
    task="dialogue",
    numbers=("raw_score", "degenerate", "judge_failed"),
    inspect=inspect_settings,
    row_fault=row_fault,
)


class RewardServerError(RuntimeError):
    """The server did not answer, or not with a score."""


@dataclass(frozen=True)
class Guards:
    """Answers that a reward model is easily fooled by, and what they get in its place (ours).

    Attributes:
        max_repetition: share of repeated word 4-grams above which a response is degenerate.
        degenerate_score: what an empty or a degenerate response gets.
    """

    max_repetition: float = 0.5
    degenerate_score: float = -5.0

    def catches(self, answer: str) -> bool:
        return not answer.strip() or repetition(answer) > self.max_repetition


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    *,
    engine: str,
    model: str,
    reward_router_address: str | None = None,
    reward_model_tokenizer: Any = None,
    timeout_s: float = 60.0,
    retries: int = 2,
    offset: float = 0.0,
    scale: float = 1.0,
    max_repetition: float = Guards.max_repetition,
    degenerate_score: float = Guards.degenerate_score,
) -> dict[str, Any]:
    """The reward model's score of one response.

    Returns:
        `score`: (raw - offset) / scale, increasing in the raw one, so that the filter compares the
        same; `raw_score`; `degenerate`: whether a guard answered in the model's place;
        `judge_failed`: 1.0 if the server did not answer. The score is 0.0 then and must not be
        trained on.

    Raises:
        ValueError: an unknown engine, no scale, or no server.
    """
    for fault in setting_faults(engine, scale, timeout_s, retries, max_repetition):
        raise ValueError(f"reward_kwargs.{fault}")
    if reward_router_address is None:
        raise ValueError(
            "no reward model is served: set reward.reward_model.enable=True, and "
            "reward.reward_model.enable_resource_pool=True with GPUs of its own"
        )
    guards = Guards(max_repetition, degenerate_score)
    if guards.catches(solution_str):
        return _result(guards.degenerate_score, guards.degenerate_score, degenerate=True)
    text = render(reward_model_tokenizer, (extra_info or {}).get("conversation"), solution_str)
    try:
        raw = await ask(reward_router_address, engine, model, text, timeout_s, retries)
    except RewardServerError:
        return _result(0.0, 0.0, failed=True)
    return _result((raw - offset) / scale, raw)


def render(tokenizer: Any, conversation: str | None, answer: str) -> str:
    """Conversation and response in the reward model's chat template, without its start token.

    The servers add the start token again. Raises ValueError without a conversation.
    """
    if not conversation:
        raise ValueError(
            "extra_info.conversation is missing: prepare the data with "
            "python -m recipe.data.prepare_prompt_collection"
        )
    messages = [*json.loads(conversation), {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=False, tokenize=False)
    start = tokenizer.bos_token
    return text.removeprefix(start) if start else text


async def ask(
    address: str, engine: str, model: str, text: str, timeout_s: float, retries: int
) -> float:
    """The last value of the model's head for `text`. Raises RewardServerError after `retries`."""
    route, payload = _request(engine, model, text)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    reason = ""
    for attempt in range(retries + 1):
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"http://{address}/{route}", json=payload) as response,
            ):
                response.raise_for_status()
                return _score(engine, await response.json())
        except (aiohttp.ClientError, TimeoutError, RewardServerError) as error:
            reason = f"{type(error).__name__}: {error}"
        if attempt < retries:
            await asyncio.sleep(2**attempt * 0.1)
    raise RewardServerError(f"{address}/{route} gave no score in {retries + 1} attempts: {reason}")


def repetition(text: str, width: int = 4) -> float:
    """The share of word `width`-grams that came before; 0 for texts too short to have one."""
    words = text.split()
    grams = Counter(tuple(words[i : i + width]) for i in range(len(words) - width + 1))
    total = sum(grams.values())
    return 0.0 if total == 0 else 1 - len(grams) / total


def _request(engine: str, model: str, text: str) -> tuple[str, dict[str, Any]]:
    """Route and body. vLLM's classify route is asked for the head's value, not a probability."""
    if engine == "vllm":
        return "classify", {"model": model, "input": text, "use_activation": False}
    return "v1/embeddings", {"model": model, "input": text}


def _score(engine: str, answer: Any) -> float:
    field = "probs" if engine == "vllm" else "embedding"
    try:
        return float(answer["data"][-1][field][-1])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise RewardServerError(f"the answer has no data[-1].{field}[-1]") from error


def _result(
    score: float, raw: float, *, degenerate: bool = False, failed: bool = False
) -> dict[str, Any]:
    return {
        "score": score,
        "raw_score": raw,
        "degenerate": float(degenerate),
        "judge_failed": float(failed),
    }
