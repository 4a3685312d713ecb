"""The differentiable term: verl's policy loss plus the constraint's, on one mixed micro-batch."""

from typing import Any

import torch
from tensordict import TensorDict
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

WEIGHT_FIELD = "refine_weight"


def constrained_loss(
    config: ActorConfig,
    model_output: dict[str, torch.Tensor],
    data: TensorDict,
    dp_group: Any = None,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """L = L_policy + Σ_t w_t·c_t over the micro-batch (ours, after the paper's section 3.3).

    The extra rows are masked out of L_policy, and the policy rows have w = 0, so each part sees
    its own rows only. The weights hold λ and the normalisation; verl averages gradients over the
    data-parallel ranks, hence the factor `dp_size`. Batches without weights get L_policy alone.
    """
    loss, metrics = ppo_loss(config, model_output, data, dp_group)
    if WEIGHT_FIELD not in data:
        return loss, metrics
    log_probs = no_padding_2_padding(model_output["log_probs"], data)
    weights = data.select(WEIGHT_FIELD).to_padded_tensor()[WEIGHT_FIELD]
    term = -(log_probs * weights).sum() * data["dp_size"]
    metrics["sft_loss"] = Metric(value=term, aggregation=AggregationType.SUM)
    return loss + term, metrics
