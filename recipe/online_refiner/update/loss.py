"""The actor's loss on mixed micro-batches: verl's policy loss plus the constraint's term."""

from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss

from recipe.online_refiner.choices import (
    CROSS_ENTROPY_METRIC,
    DIVERGENCE_METRIC,
    LABEL_FIELD,
    LABEL_MARGIN,
    MEASURE,
    NUMBER_FIELD,
    POLICY_SHARE,
    TARGET_IDS_FIELD,
    TARGET_LOG_REST,
    TARGET_MARGIN,
    TOKEN_FACTOR,
    WEIGHT_FIELD,
)
from recipe.online_refiner.method.maths import divergence_from_top_tokens, expert_token_factor
from recipe.online_refiner.queue import label_code
from recipe.online_refiner.update.label_logits import label_margins
from recipe.online_refiner.update.places import Places, response_places
from recipe.online_refiner.update.target_logits import packed_log_probs, target_sums


def constrained_loss(
    config: ActorConfig,
    model_output: dict[str, torch.Tensor] | None = None,
    data: TensorDict | None = None,
    dp_group: Any = None,
    student_logits: torch.Tensor | None = None,
    data_format: str = "thd",
) -> Any:
    """What verl's engines call twice: with the logits, if a batch asks for it, then for the loss.

    With `student_logits` it returns more model outputs (`label_logits`, `target_logits`), otherwise
    the loss and its metrics. A pass that only measures has neither.
    """
    assert data is not None
    if student_logits is not None:
        given = (student_logits, data, config.strategy, data_format)
        outputs = label_margins(*given) if LABEL_FIELD in data else {}
        return outputs | (target_sums(*given) if TARGET_IDS_FIELD in data else {})
    assert model_output is not None
    if tu.get_non_tensor_data(data=data, key=MEASURE, default=False):
        return torch.zeros((), device=data["input_ids"].device), {}
    return mixed_loss(config, model_output, data, dp_group)


def mixed_loss(
    config: ActorConfig,
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """L = s·L_policy + Σ_t w_t·φ_t·c_t over the micro-batch.

    s = 1 and φ = 1 for the dynamic constraint (ours, after arXiv 2603.18088, section 3.3);
    s = 1 - μ and, if asked for, φ = p(1 - p) for CHORD (arXiv 2508.11408).

    c_t is of the row's own token, or of the label that its state has; of a row with targets the
    divergence from each stands in its place. The extra rows are masked out
    of L_policy, and the policy rows have w = 0 but on their labels, so each part sees its own
    tokens only. The weights hold λ or μ and the normalisation; verl averages gradients over
    the data-parallel ranks, hence the factor `dp_size`. A row whose cross entropy is not finite
    has no part in the term. Batches without weights get L_policy alone.
    """
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    metrics = per_token(metrics, data)
    if NUMBER_FIELD not in data:
        return loss, metrics
    weights, reported, places = _weighted(data)
    log_probs = _response_log_probs(model_output, places)
    costs, report = -log_probs, partial(_reported, numbers_B=data[NUMBER_FIELD], places=places)
    metrics[CROSS_ENTROPY_METRIC] = report(costs.detach(), reported)
    if TARGET_MARGIN in model_output:
        costs, taught = _with_divergences(costs, model_output, data, places)
        metrics[DIVERGENCE_METRIC] = report(costs.detach(), taught)
    known = costs.detach().where(weights != 0, 0.0)
    weighted = (weights != 0) & _in_finite_rows(known, places.row_M, len(data))
    if tu.get_non_tensor_data(data=data, key=TOKEN_FACTOR, default=False):
        weights = weights * expert_token_factor(log_probs)
    term = (costs.where(weighted, 0.0) * weights.where(weighted, 0.0)).sum() * data["dp_size"]
    metrics["sft_loss"] = Metric(value=term, aggregation=AggregationType.SUM)
    share = tu.get_non_tensor_data(data=data, key=POLICY_SHARE, default=1.0)
    return loss * share + term, metrics


def per_token(metrics: dict[str, Any], data: TensorDict) -> dict[str, Any]:
    """verl's means over a micro-batch's tokens as their part of the mean over the mini-batch's.

    verl averages such means (`pg_clipfrac`, `ppo_kl`) over micro-batches, each counting the same: a
    micro-batch of extra rows alone has no policy token and counts as 0, so that the value falls
    with the number of refinements. Weighted by tokens it is the same for any rows beside the
    policy's and any cut.
    """
    share = data["response_mask"].values().sum().item() / max(data["batch_num_tokens"], 1)
    return {
        name: Metric(AggregationType.SUM, value.aggregate() * share * data["dp_size"])
        if isinstance(value, Metric) and value.aggregation is AggregationType.MEAN
        else value
        for name, value in metrics.items()
    }


def _weighted(data: TensorDict) -> tuple[torch.Tensor, torch.Tensor, Places]:
    """Weights of the response tokens, flags of those that are reported on, and places. (M,), (M,).

    Of a row with labels these are the labelled ones, of another one all.
    """
    if WEIGHT_FIELD in data:
        weights = data[WEIGHT_FIELD].values()
        return (
            weights,
            torch.ones_like(weights, dtype=torch.bool),
            response_places(data, WEIGHT_FIELD),
        )
    values = data[LABEL_FIELD].values()
    labelled = label_code.labels_plus_one(values) > 0
    return label_code.weights(values), labelled, response_places(data, LABEL_FIELD)


def _with_divergences(
    costs_M: torch.Tensor, model_output: dict[str, torch.Tensor], data: TensorDict, places: Places
) -> tuple[torch.Tensor, torch.Tensor]:
    """c_t, or the divergence on rows that have targets; and flags of their tokens. (M,), (M,)."""
    log_q_MK, taught_M = packed_log_probs(data, places)
    margins, log_rests = (
        _packed(model_output[name])[places.state_M] for name in (TARGET_MARGIN, TARGET_LOG_REST)
    )
    divergences = divergence_from_top_tokens(log_q_MK, -costs_M, margins, log_rests)
    return divergences.where(taught_M, costs_M), taught_M


def _response_log_probs(model_output: dict[str, torch.Tensor], places: Places) -> torch.Tensor:
    """log π of each response token, or of the label in its place. Shape (M,).

    Taken from the packed tokens at once: padding row by row, as verl does, costs a small update
    more than the term itself.
    """
    log_probs = _packed(model_output["log_probs"])[places.state_M]
    if LABEL_MARGIN in model_output:
        log_probs = log_probs + _packed(model_output[LABEL_MARGIN])[places.state_M]
    return log_probs


def _packed(values: torch.Tensor) -> torch.Tensor:
    return values.values() if values.is_nested else values


def _in_finite_rows(values_M: torch.Tensor, row_of_M: torch.Tensor, rows: int) -> torch.Tensor:
    """Flags on the response tokens: whether all values of their row are finite. Shape (M,)."""
    faults = values_M.new_zeros(rows)
    faults.index_add_(0, row_of_M, (~torch.isfinite(values_M)).to(faults.dtype))
    return faults[row_of_M] == 0


def _reported(
    values_M: torch.Tensor, asked_M: torch.Tensor, numbers_B: torch.Tensor, places: Places
) -> list[tuple[int, list[float]]]:
    """The values on the asked tokens of each numbered row that has some, with its number."""
    asked_M = asked_M & (numbers_B > 0)[places.row_M]
    values = values_M[asked_M].tolist()
    counts = places.row_M[asked_M].bincount(minlength=len(numbers_B)).tolist()
    found, start = [], 0
    for number, count in zip(numbers_B.tolist(), counts, strict=True):
        if count:
            found.append((number, values[start : start + count]))
        start += count
    return found
