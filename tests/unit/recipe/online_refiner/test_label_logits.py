"""c_t under both readings on a model of three tokens, by verl's hook and loss."""

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from row_fields import fields_of
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig

from recipe.online_refiner.queue.label_code import coded, labels_plus_one
from recipe.online_refiner.queue.label_code import weights as weights_of
from recipe.online_refiner.update import logit_layout
from recipe.online_refiner.update.label_logits import label_margins
from recipe.online_refiner.update.logit_layout import picked
from recipe.online_refiner.update.loss import constrained_loss
from recipe.online_refiner.update.rows import response_row

# p(next | last): the rows are the last token.
TABLE = torch.tensor([[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 2, 1 / 4], [1 / 8, 1 / 8, 3 / 4]])
PROMPT, ANSWER, REFINED = [2, 0], [0, 1, 2], [0, 2, 2, 1]
BY_POSITION = [0, 2, 2]
CONFIG = FSDPActorConfig(
    strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1, use_dynamic_bsz=False
)

Row = dict[str, torch.Tensor]


class TableModel:
    """The logits of the next token depend on the last one alone."""

    def __init__(self, logits: torch.Tensor | None = None) -> None:
        self.logits = TABLE.double().log() if logits is None else logits

    def __call__(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.logits[input_ids]


def row(prompt: list[int], answer: list[int], labels: list[int], weights: list[float]) -> Row:
    made = response_row(prompt, answer)
    shape = made["responses"].shape
    made["advantages"] = torch.zeros(shape)
    made["old_log_probs"] = torch.zeros(shape)
    made["refine_label"] = coded(torch.tensor(labels), torch.tensor(weights))
    made["refine_number"] = torch.tensor(1)
    return made


def batch_of(rows: list[Row], **settings: Any) -> TensorDict:
    batch = TensorDict(fields_of(rows), batch_size=len(rows))
    tu.assign_non_tensor(batch, dp_size=1, batch_num_tokens=6, global_batch_size=2, **settings)
    return batch


def outputs(model: TableModel, batch: TensorDict) -> dict[str, torch.Tensor]:
    """What verl's engine makes of packed rows: own log-probs and the hook's outputs, jagged."""
    packed, offsets = batch["input_ids"].values(), batch["input_ids"].offsets()
    logits = model(packed)
    own = torch.log_softmax(logits, dim=-1).gather(1, packed.roll(-1)[:, None])[:, 0]
    hooked = constrained_loss(config=CONFIG, student_logits=logits[None], data=batch)
    flat = {"log_probs": own} | {name: value[0] for name, value in hooked.items()}
    return {
        name: torch.nested.nested_tensor_from_jagged(value, offsets) for name, value in flat.items()
    }


def reported(rows: list[Row]) -> list[list[float]]:
    """c_t on the labelled steps of each row, as the loss reports it."""
    batch = batch_of(rows)
    _, metrics = constrained_loss(CONFIG, outputs(TableModel(), batch), batch)
    return [values for _, values in metrics["refine_ce"]]


def test_label_and_weight_come_back_out_of_one_value() -> None:
    labels = torch.tensor([-1, 0, 7, 2**31 - 2, -1])
    given = torch.tensor([0.0, 1.0, -0.5, 1e-30, 0.1])
    values = coded(labels, given)
    # 1.0 is 0x3f800000 as a float32.
    assert values[:2].tolist() == [0, 0x3F800000 * 2**32 + 1]
    assert (labels_plus_one(values) - 1).tolist() == labels.tolist()
    assert weights_of(values).tolist() == given.tolist()
    assert coded(labels).tolist() == [0, 1, 8, 2**31 - 1, 0]


def test_self_fed_each_token_is_asked_for_in_the_rollouts_own_state() -> None:
    (found,) = reported([row(PROMPT, ANSWER, BY_POSITION, [0.0] * 3)])
    assert found == pytest.approx([math.log(2), math.log(4), math.log(4)])


def teacher_forced() -> list[float]:
    """c_t of the pair (s0, a'): its own tokens are the labels."""
    (found,) = reported([row(PROMPT, REFINED, REFINED, [0.0] * 4)])
    return found


def test_teacher_forced_it_is_asked_for_after_the_refinements_own_tokens() -> None:
    assert teacher_forced() == pytest.approx(
        [math.log(2), math.log(4), math.log(4 / 3), math.log(8)]
    )


def test_up_to_the_first_edit_both_readings_are_the_same_to_the_bit() -> None:
    (self_fed,) = reported([row(PROMPT, ANSWER, BY_POSITION, [0.0] * 3)])
    assert self_fed[:2] == teacher_forced()[:2]
    assert self_fed[2] != teacher_forced()[2]


def test_a_label_that_is_the_rows_own_token_has_no_margin() -> None:
    batch = batch_of([row(PROMPT, ANSWER, ANSWER, [1.0] * 3)])
    logits = TableModel()(batch["input_ids"].values())[None]
    margins = label_margins(logits, batch, "fsdp2", "thd")["refine_label_margin"]
    assert margins.tolist() == [[0.0] * 5]


def test_the_margin_stands_at_the_state_and_nowhere_else() -> None:
    batch = batch_of([row(PROMPT, ANSWER, [1, -1, 0], [1.0] * 3)])
    logits = TableModel()(batch["input_ids"].values())[None]
    margins = label_margins(logits, batch, "fsdp2", "thd")["refine_label_margin"]
    # After the prompt's last token, 0, the rollout has 0 (1/2) and label 1 is (1/4); then it has 2
    # (1/4), as likely as label 0.
    assert margins[0].tolist() == pytest.approx([0.0, -math.log(2), 0.0, 0.0, 0.0])


def test_rows_of_a_pack_do_not_see_each_others_labels() -> None:
    rows = [row(PROMPT, ANSWER, BY_POSITION, [0.0] * 3), row([1], [2, 2], [0, -1], [0.0] * 2)]
    assert reported(rows) == [
        pytest.approx([math.log(2), math.log(4), math.log(4)]),
        pytest.approx([math.log(4)]),
    ]


def test_labels_of_another_length_than_the_logits_are_refused() -> None:
    batch = batch_of([row(PROMPT, ANSWER, BY_POSITION, [0.0] * 3)])
    with pytest.raises(ValueError, match="do not fit"):
        label_margins(torch.zeros(1, 7, 3), batch, "fsdp2", "thd")


def test_a_pass_that_measures_has_no_loss() -> None:
    batch = batch_of([row(PROMPT, ANSWER, BY_POSITION, [1.0] * 3)], refine_measure=True)
    loss, metrics = constrained_loss(CONFIG, outputs(TableModel(), batch), batch)
    assert loss.item() == 0.0
    assert metrics == {}


def term(logits: torch.Tensor, weights: list[float]) -> torch.Tensor:
    batch = batch_of(
        [row(PROMPT, ANSWER, BY_POSITION, weights), row([1], [2, 0], [0, -1], [0.25, 0.0])]
    )
    loss, _ = constrained_loss(CONFIG, outputs(TableModel(logits), batch), batch)
    assert isinstance(loss, torch.Tensor)
    return loss


def test_the_gradient_of_the_self_fed_term_equals_finite_differences_and_the_formula() -> None:
    start = TABLE.double().log()
    weights = [0.5, 0.25, 0.125]
    assert torch.autograd.gradcheck(
        lambda values: term(values, weights), start.clone().requires_grad_()
    )
    free = start.clone().requires_grad_()
    (got,) = torch.autograd.grad(term(free, weights), free)
    log_p = torch.log_softmax(free, dim=-1)
    formula = -(0.5 * log_p[0, 0] + 0.25 * log_p[0, 2] + 0.125 * log_p[1, 2] + 0.25 * log_p[1, 0])
    (expected,) = torch.autograd.grad(formula, free)
    assert torch.allclose(got, expected)


def test_a_label_that_the_policy_cannot_write_takes_its_row_out_of_the_term() -> None:
    start = TABLE.double().log().clone()
    start[0, 2] = -math.inf
    assert term(start, [0.5, 0.25, 0.125]).item() == pytest.approx(0.25 * math.log(4))


def test_over_a_split_vocabulary_each_rank_gives_its_tokens_and_the_sum_is_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Megatron-Core's rank and reduction stood in for; two ranks with two of four tokens each."""
    rank = 0
    state = SimpleNamespace(get_tensor_model_parallel_rank=lambda: rank)
    parallel = SimpleNamespace(reduce_from_tensor_model_parallel_region=lambda values: values)
    monkeypatch.setitem(sys.modules, "megatron.core.parallel_state", state)
    monkeypatch.setitem(sys.modules, "megatron.core.tensor_parallel", parallel)
    logits = torch.tensor([[[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0], [0.0] * 4]])
    asked = (torch.tensor([0, 0]), torch.tensor([0, 1]))
    ids = torch.tensor([[0, 3], [2, 1]])
    parts = []
    for rank in (0, 1):
        part = logits[..., 2 * rank : 2 * rank + 2]
        parts.append(picked(part, asked, ids, split=True).tolist())
    # Choices by states: tokens 0 and 3, then tokens 2 and 1.
    assert parts == [[[1.0, 0.0], [0.0, 32.0]], [[0.0, 128.0], [4.0, 0.0]]]
    assert picked(logits, asked, ids, split=False).tolist() == [[1.0, 128.0], [4.0, 32.0]]


def test_margins_of_half_precision_logits_are_taken_in_float32() -> None:
    batch = batch_of([row(PROMPT, ANSWER, [1, -1, 0], [1.0] * 3)])
    logits = TableModel()(batch["input_ids"].values())[None].to(torch.bfloat16)
    margins = label_margins(logits, batch, "fsdp2", "thd")["refine_label_margin"]
    assert margins.dtype == torch.float32


@pytest.mark.parametrize("data_format", ["thd", "bshd"])
def test_megatrons_logits_are_met_in_the_layout_that_verl_lays_its_rows_out_in(
    monkeypatch: pytest.MonkeyPatch, data_format: str
) -> None:
    """verl's two functions and Megatron-Core stood in for, one rank; the other layout fails."""

    def laid_out(values: torch.Tensor, pre_process: bool) -> tuple[torch.Tensor, None]:
        assert pre_process
        return values.values()[None], None

    def other(values: torch.Tensor, pre_process: bool) -> None:
        raise AssertionError("the other layout was asked for")

    layouts = {"thd": other, "bshd": other, data_format: laid_out}
    verls = SimpleNamespace(
        **{f"preprocess_{name}_engine": function for name, function in layouts.items()}
    )
    monkeypatch.setitem(sys.modules, "verl.models.mcore.util", verls)
    state = SimpleNamespace(get_tensor_model_parallel_rank=lambda: 0)
    monkeypatch.setitem(sys.modules, "megatron.core.parallel_state", state)
    parallel = SimpleNamespace(reduce_from_tensor_model_parallel_region=lambda values: values)
    monkeypatch.setitem(sys.modules, "megatron.core.tensor_parallel", parallel)
    batch = batch_of([row(PROMPT, ANSWER, [1, -1, 0], [1.0] * 3)])
    logits = TableModel()(batch["input_ids"].values())[None]
    margins = label_margins(logits, batch, "megatron", data_format)["refine_label_margin"]
    assert margins[0].tolist() == pytest.approx([0.0, -math.log(2), 0.0, 0.0, 0.0])


def test_a_single_label_is_measured_like_many() -> None:
    batch = batch_of([row(PROMPT, ANSWER, [1, -1, -1], [1.0] * 3)])
    logits = TableModel()(batch["input_ids"].values())[None]
    margins = label_margins(logits, batch, "fsdp2", "thd")["refine_label_margin"]
    assert margins[0].tolist() == pytest.approx([0.0, -math.log(2), 0.0, 0.0, 0.0])


def test_under_ulysses_a_rank_lays_out_its_share_of_the_packed_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """verl's slice stood in for: the second of two ranks."""

    def second_half(packed: torch.Tensor, dim: int) -> torch.Tensor:
        assert packed.shape[0] == 1
        return packed.chunk(2, dim=dim)[1]

    monkeypatch.setattr(logit_layout, "get_ulysses_sequence_parallel_world_size", lambda: 2)
    monkeypatch.setattr(logit_layout, "slice_input_tensor", second_half)
    batch = batch_of([row(PROMPT, [0, 1], [-1, 0], [1.0] * 2)])
    logits = TableModel()(batch["input_ids"].values())[None, 2:]
    margins = label_margins(logits, batch, "fsdp2", "thd")["refine_label_margin"]
    # After 0 the rollout has 1 (1/4), and label 0 is 1/2.
    assert margins[0].tolist() == pytest.approx([math.log(2), 0.0])
