"""The constraint as pure mathematics: tensors in, tensors out; nothing here knows verl.

Shapes, right-padded, masks of the same shape with 1 on real tokens:
    B rows; T tokens of the rollout a; U tokens of the refined response a'.
    log_probs_BU, ce_BU: of the policy on a', in one of the two readings below.
    mask_BU: the token mask, 1 on the tokens of a' that the constraint is on.
    response_mask_BT: the tokens of a.

Notation and sources: c_t = -log π_θ(a'_t | s0, a_<t) if the policy feeds itself (most likely the
paper's), -log π_θ(a'_t | s0, a'_<t) if it is teacher-forced; m = 1[R(a') > R(a)]; the penalty is
-λ·m·Σc_t (Ma et al., arXiv 2603.18088, section 3.3). What the paper leaves open is marked "ours".
"""

from collections.abc import Sequence

import torch

from recipe.online_refiner.choices import Align, Filter, Reduce, Tokens

REST = 1e-6
"""The least share outside the listed tokens that a sum of float32 probabilities tells from none."""


def accepts(reward: float, refined_reward: float, rule: Filter) -> bool:
    """The filter m on one pair of unshaped rewards R(a), R(a').

    A NaN compares false with everything, so it is accepted by `off` alone.
    """
    if rule is Filter.BETTER:
        return refined_reward > reward
    if rule is Filter.NOT_WORSE:
        return refined_reward >= reward
    return True


def token_mask(copied: list[int], divergence: int, which: Tokens) -> list[int]:
    """The token mask: flags over the U tokens of a', from its diff against a.

    Args:
        copied: 1 if the token is in a at the aligned place.
        divergence: index of the first token of a' that differs from a at the same index.
        which: the selection; `after_divergence` and `first_edit` both include the token at
            `divergence`; `aligned` takes all, and `states.states_of` says which have a state.
    """
    if which is Tokens.EDITED:
        return [1 - flag for flag in copied]
    if which is Tokens.AFTER_DIVERGENCE:
        return [int(index >= divergence) for index in range(len(copied))]
    if which is Tokens.FIRST_EDIT:
        return [int(index <= divergence) for index in range(len(copied))]
    return [1] * len(copied)


def reduced(ce_BU: torch.Tensor, mask_BU: torch.Tensor, how: Reduce) -> torch.Tensor:
    """Cross entropy per token: c_t for `sum`, c_t / |tokens| for `mean`; 0 rows stay 0. (B, U)."""
    if how is Reduce.SUM:
        return ce_BU
    return ce_BU / mask_BU.sum(dim=1, keepdim=True).clamp(min=1)


def aligned(
    values_BU: torch.Tensor,
    response_mask_BT: torch.Tensor,
    how: Align,
    sources_BU2: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lay values on a' over the tokens of a, conserving each row's sum. Shape (B, T). Ours.

    `position` puts c_t on step t while t < min(T, U) and the rest on a's last token; `last` puts
    all of it there; `edit` spreads c_t evenly over the tokens of a that a'_t copies or replaces,
    or puts it on the one before an insertion. Step t counts a's unmasked tokens. A row without
    tokens gets nothing.

    Args:
        sources_BU2: `edit` only: half-open ranges of steps of a; anything if the value is 0.
    """
    mask = response_mask_BT.to(values_BU.dtype)
    step_BT = (response_mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
    placed_BT = torch.zeros_like(mask)
    if how is Align.POSITION:
        placed_BT = _at_steps(values_BU, step_BT) * mask
    elif how is Align.EDIT:
        if sources_BU2 is None:
            raise ValueError("align=edit needs the sources of the diff between a and a'")
        placed_BT = _at_steps(_spread(values_BU, sources_BU2, mask.shape[1]), step_BT) * mask
    rest_B = values_BU.sum(dim=1) - placed_BT.sum(dim=1)
    last_B = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)
    has_tokens_B = mask.any(dim=1).to(mask.dtype)
    return placed_BT.scatter_add(1, last_B.unsqueeze(1), (rest_B * has_tokens_B).unsqueeze(1))


def return_to_go(
    penalty_BT: torch.Tensor, response_mask_BT: torch.Tensor, gamma: float
) -> torch.Tensor:
    """G_t = Σ_{u≥t} γ^(u-t)·q_u over a's unmasked steps; 0 on masked ones. Shape (B, T).

    The paper's code base, OpenRLHF, cumulates a per-token penalty like this when rewards are
    normalised by group. Steps are counted over unmasked tokens alone (ours).
    """
    mask_BT = response_mask_BT.to(penalty_BT.dtype)
    sums_BT = torch.zeros_like(penalty_BT)
    sum_B = penalty_BT.new_zeros(penalty_BT.shape[0])
    for step in reversed(range(penalty_BT.shape[1])):
        mask_B = mask_BT[:, step]
        sum_B = torch.where(mask_B > 0, penalty_BT[:, step] + gamma * sum_B, sum_B)
        sums_BT[:, step] = sum_B * mask_B
    return sums_BT


def _at_steps(values_BS: torch.Tensor, step_BT: torch.Tensor) -> torch.Tensor:
    beyond_BT = step_BT >= values_BS.shape[1]
    picked_BT = values_BS.gather(1, step_BT.clamp(max=values_BS.shape[1] - 1))
    return picked_BT.masked_fill(beyond_BT, 0.0)


def _spread(values_BU: torch.Tensor, sources_BU2: torch.Tensor, steps: int) -> torch.Tensor:
    """Each value in equal shares over its range of steps. Shape (B, steps).

    Summed as differences at the ranges' ends, in float64 so that what cancels leaves nothing; the
    two ends of an empty range cancel too.
    """
    start_BU, end_BU = sources_BU2.clamp(max=steps).unbind(dim=-1)
    share_BU = values_BU.double() / (end_BU - start_BU).clamp(min=1)
    ends_BS = torch.zeros(
        values_BU.shape[0], steps + 1, dtype=torch.float64, device=values_BU.device
    )
    ends_BS.scatter_add_(1, start_BU, share_BU).scatter_add_(1, end_BU, -share_BU)
    return ends_BS.cumsum(dim=1)[:, :steps].to(values_BU.dtype)


def penalised(
    values_BT: torch.Tensor, penalty_BT: torch.Tensor, response_mask_BT: torch.Tensor
) -> torch.Tensor:
    """Rewards or advantages minus the penalty, on a's unmasked tokens. Shape (B, T)."""
    return values_BT - penalty_BT.to(values_BT.dtype) * response_mask_BT


def sft_weights(mask_BU: torch.Tensor, lambda_: float, rows: int, how: Reduce) -> torch.Tensor:
    """Weights w so that Σ_rows Σ_t w_t·c_t = λ · (1/rows) · Σ_i m_i · reduce_t(c_t). (B, U).

    Args:
        mask_BU: the token mask of the accepted a'.
        lambda_: λ of this step.
        rows: rollouts of the mini-batch, accepted or not, so that the term vanishes with the share
            of accepted rows (ours).
        how: `mean` also divides each row by the number of tokens in its mask.
    """
    return reduced(mask_BU.float(), mask_BU, how) * (lambda_ / rows)


def expert_weights(mask_RU: torch.Tensor, share: float, mini_batches: int) -> torch.Tensor:
    """CHORD's weights on demonstrations: Σ_t w_t·c_t over a mini-batch is μ·mean(c_t). (R, U).

    Row i is in mini-batch i mod `mini_batches`. The mean is over the rows of that mini-batch, so
    that (1-μ):μ holds in each optimizer step, also if one has a row more than another. Each row
    counts the same, however long (arXiv 2508.11408 averages over a batch of experts; ours).

    Args:
        mask_RU: the tokens of the step's R rows. share: μ of this step.
    """
    index_R = torch.arange(mask_RU.shape[0], device=mask_RU.device) % mini_batches
    beside_R = index_R.bincount(minlength=mini_batches)[index_R]
    return reduced(mask_RU.float(), mask_RU, Reduce.MEAN) * share / beside_R[:, None]


def expert_token_factor(log_probs_BU: torch.Tensor) -> torch.Tensor:
    """CHORD's φ = p·(1 - p), without a gradient: largest if the policy is undecided. (B, U).

    Expert tokens that the policy finds very likely teach little, and very unlikely ones would
    throw it off (arXiv 2508.11408, section 3.3).
    """
    p_BU = log_probs_BU.detach().float().exp()
    return p_BU * (1.0 - p_BU)


def divergence_from_top_tokens(
    target_log_probs_BUK: torch.Tensor,
    own_log_probs_BU: torch.Tensor,
    margins_BU: torch.Tensor,
    log_rests_BU: torch.Tensor,
) -> torch.Tensor:
    """KL(q ‖ π_θ) per token over the k tokens that q lists and one event for all others. (B, U).

    KL = Σ_i q_i·log(q_i/π_i) + q_rest·log(q_rest/π_rest), with q_rest = 1 - Σ_i q_i and likewise
    π_rest, so that it is a divergence of distributions: not negative, and 0 only if the policy
    agrees on the k tokens. SDPO (arXiv 2601.20802) has this event as well; verl's top-k
    distillation leaves it out, and clamps what is then negative. Of a q that is certain of one
    token it is that token's cross entropy. With m_j = log π_j - log π_own, π is needed as two sums:

        Σ_i q_i·log π_i = Σ_i q_i·m_i + log π_own·Σ_i q_i
        log π_rest = log π_own + log Σ_j exp m_j

    for j not listed. All factors of π's gradient are at most 1: taking π_rest as 1 - Σ_i π_i would
    have them cancel by the large factor 1/π_rest, which bf16 cannot.

    Args:
        target_log_probs_BUK: log q_i in nats, -inf for no token.
        own_log_probs_BU: log π of the row's own token.
        margins_BU: Σ_i q_i·m_i. log_rests_BU: log Σ_j exp m_j; anything where q has no rest.
    """
    dtype = torch.promote_types(own_log_probs_BU.dtype, torch.float32)
    own_log_probs_BU = own_log_probs_BU.to(dtype)
    q_BUK = target_log_probs_BUK.to(dtype).exp()
    rest_BU = rest_of(target_log_probs_BUK).to(dtype)
    negative_entropy_BU = torch.xlogy(q_BUK, q_BUK).sum(dim=-1) + torch.xlogy(rest_BU, rest_BU)
    log_rest_BU = own_log_probs_BU + log_rests_BU.where(rest_BU > 0, 0.0)
    listed_BU = margins_BU + own_log_probs_BU * q_BUK.sum(dim=-1)
    return negative_entropy_BU - listed_BU - rest_BU * log_rest_BU


def rest_of(target_log_probs_K: torch.Tensor) -> torch.Tensor:
    """1 - Σ_i q_i over the last dimension; 0 if it is no more than rounding leaves."""
    rest = 1.0 - target_log_probs_K.exp().sum(dim=-1)
    return rest.where(rest > REST, 0.0)


def kl_estimate(
    log_probs_BT: torch.Tensor, reference_log_probs_BT: torch.Tensor, mask_BT: torch.Tensor
) -> torch.Tensor:
    """KL(π_θ ‖ π_0) in nats a response: the mean over rows of Σ_t log π_θ - log π_0 (k1).

    Unbiased on responses sampled from π_θ; single batches can come out below zero. Scalar.
    """
    difference = (log_probs_BT.float() - reference_log_probs_BT.float()) * mask_BT
    return difference.sum(dim=1).mean()


def neutral_rewards(rows: Sequence[tuple[str, float, bool]]) -> list[float]:
    """For each (group, reward, judged) row the mean reward of its group's judged rows.

    A group without any judged row gets 0 throughout: equal rewards give no advantage. Putting the
    mean in place of a missing reward leaves the group's baseline as the judged rows set it (ours).
    """
    judged: dict[str, list[float]] = {}
    for group, reward, has_verdict in rows:
        if has_verdict:
            judged.setdefault(group, []).append(reward)
    means = {group: sum(rewards) / len(rewards) for group, rewards in judged.items()}
    return [means.get(group, 0.0) for group, _, _ in rows]
