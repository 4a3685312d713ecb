"""Sizes of models that are known, and the arithmetic of the two phases by hand."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.online_refiner.preflight.memory import (
    GIB,
    PROCESS_BYTES,
    SERVER_WORKSPACE_BYTES,
    ModelShape,
    ServerShare,
    Sharding,
    TrainedModel,
    activation_bytes,
    checkpoint_bytes,
    forward_only,
    peaks,
    server,
    trained,
    value_activation_bytes,
)

# hidden 4, 2 layers, intermediate 8, queries 4, keys 2, 10 words, tied:
# 40 + 2·(4·(8 + 4) + 96 + 8) + 4 = 348 parameters.
SMALL = ModelShape(4, 2, 8, 4, 2, 10, tied=True)


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        # Llama-3.2-3B, Qwen2.5-1.5B, Qwen2.5-32B, Llama-3-8B: sizes of their model cards.
        ((3072, 28, 8192, 24, 8, 128256, True), 3.21),
        ((1536, 28, 8960, 12, 2, 151936, True), 1.54),
        ((5120, 64, 27648, 40, 8, 152064, False), 32.8),
        ((4096, 32, 14336, 32, 8, 128256, False), 8.03),
    ],
)
def test_known_models_have_the_size_of_their_model_card(
    config: tuple[int, int, int, int, int, int, bool], billions: float
) -> None:
    hidden, layers, intermediate, heads, key_heads, vocabulary, tied = config
    shape = ModelShape.from_config(
        {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "intermediate_size": intermediate,
            "num_attention_heads": heads,
            "num_key_value_heads": key_heads,
            "vocab_size": vocabulary,
            "tie_word_embeddings": tied,
        }
    )
    assert (shape.heads, shape.key_heads) == (heads, key_heads)
    assert shape.parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_parameters_and_cache_of_a_small_model() -> None:
    assert SMALL.parameters == 348
    assert SMALL.cache_bytes_per_token == 2 * 2 * 2 * 2


# Of SMALL: a layer has 4·(8 + 4) + 96 + 8 = 152 parameters, the output layer 40.
GATHERED = 10 * 152 + 8 * 40


def test_fsdp_spreads_sixteen_bytes_a_parameter_and_gathers_two_layers_and_the_output() -> None:
    model = trained(SMALL, Sharding(gpus=4))
    assert (model.weights, model.gradients, model.optimizer) == (348, 348, 696)
    assert model.in_use == 348 * 16 // 4 + GATHERED
    assert model.resident == 348 + 696


def test_what_is_offloaded_is_resident_no_more_and_counts_while_in_use() -> None:
    model = trained(SMALL, Sharding(gpus=4, offloads_weights=True, offloads_optimizer=True))
    assert model.resident == 0
    assert model.in_use == 348 * 16 // 4 + GATHERED


def test_megatron_splits_layers_over_some_and_the_optimizer_over_all() -> None:
    model = trained(SMALL, Sharding(gpus=8, megatron=True, tensor_parallel=2))
    assert (model.weights, model.gradients, model.optimizer) == (348, 696, 522)
    assert model.gathered == 0


def test_the_largest_stage_of_a_pipeline_has_an_embedding_or_the_output_layer() -> None:
    # One layer, the output layer, the last norm: 152 + 40 + 4.
    staged = Sharding(gpus=8, megatron=True, tensor_parallel=2, pipeline_parallel=2)
    model = trained(SMALL, staged)
    assert (model.weights, model.gradients) == (196, 392)


def test_a_reference_has_neither_gradients_nor_an_optimizer() -> None:
    model = forward_only(SMALL, Sharding(gpus=2))
    assert (model.weights, model.gradients, model.optimizer) == (696, 0, 0)


def test_activations_grow_with_tokens_and_the_logits_are_split() -> None:
    # saved 2·3·4·2 = 48, at work 2·3·(40 + 32) = 432, logits 8·3·10 = 240.
    assert activation_bytes(SMALL, 3, Sharding(gpus=2)) == 48 + 432 + 240
    assert value_activation_bytes(SMALL, 3, Sharding(gpus=2)) == 48 + 432
    split = Sharding(gpus=2, megatron=True, tensor_parallel=2)
    assert activation_bytes(SMALL, 3, split) == 48 + 432 + 120


def test_sequence_parallelism_shares_activations_but_one_gathered_layer() -> None:
    split = Sharding(gpus=2, megatron=True, tensor_parallel=2, sequence_parallel=True)
    assert activation_bytes(SMALL, 3, split) == 24 + 216 + 4 * 3 * 4 + 120


def test_without_recomputation_every_layer_keeps_its_activations() -> None:
    assert activation_bytes(SMALL, 3, Sharding(gpus=1, recomputes=False)) == 2 * 432 + 432 + 240


def test_a_servers_cache_is_what_weights_leave_of_its_share() -> None:
    one = server(SMALL, gpu_bytes=10 * GIB, utilization=0.5)
    assert one.share_bytes == 5 * GIB
    assert one.weight_bytes == 696
    assert one.cache_tokens == (5 * GIB - 696 - SERVER_WORKSPACE_BYTES) // 16


def test_a_cache_that_is_given_is_taken_as_it_is() -> None:
    one = server(SMALL, gpu_bytes=10 * GIB, utilization=0.5, cache_bytes=1600)
    assert one.cache_tokens == 100
    assert one.share_bytes == 696 + SERVER_WORKSPACE_BYTES + 1600


def test_the_two_phases_hold_what_is_resident_and_what_is_at_work() -> None:
    models = {
        "actor": TrainedModel(weights=10, gradients=10, optimizer=20, resident=30),
        "critic": TrainedModel(weights=5, gradients=5, optimizer=10, resident=0),
    }
    servers = {"policy": ServerShare(100, 0, 0), "refiner": ServerShare(50, 0, 0)}
    found = peaks(models, {"actor": 7, "critic": 70}, servers)
    assert found.rollout == 30 + 150 + PROCESS_BYTES
    # The critic at work: 30 of the actor's, 20 of its own, 70 of activations.
    assert found.update == 30 + 20 + 70 + 3 * PROCESS_BYTES


def test_a_checkpoint_has_weights_and_two_moments() -> None:
    assert checkpoint_bytes(100) == 1200


def memory_table() -> Any:
    """The script that writes docs/memory.md."""
    path = Path(__file__).resolve().parents[4] / "scripts" / "memory_table.py"
    spec = importlib.util.spec_from_file_location("memory_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_numbers_of_the_formulas(repo_root: Path) -> None:
    written = (repo_root / "docs" / "memory.md").read_text()
    assert written == memory_table().document(), "run scripts/memory_table.py"


def test_seven_billion_under_fsdp2_on_eight_gpus_by_hand() -> None:
    """7.615 B parameters, a layer of 233.0 M, an output layer of 545.0 M, 16,384 tokens."""
    setup = next(one for one in memory_table().SETUPS if one.model == "7B")
    states = 16 * 7.615e9 / 8
    gathered = 10 * 0.2330e9 + 8 * 0.5450e9
    saved = 2 * 16384 * 3584 * 28
    at_work = 2 * 16384 * (10 * 3584 + 4 * 18944)
    logits = 8 * 16384 * 152064
    total = states + gathered + saved + at_work + logits + 3 * PROCESS_BYTES
    assert setup.peak("update") == pytest.approx(total, rel=1e-3)


def test_thirty_two_billion_under_megatron_on_four_nodes_by_hand() -> None:
    """32.76 B parameters over 8 tensor-parallel GPUs, activations shared among them."""
    setup = next(one for one in memory_table().SETUPS if "tensor 8" in one.name)
    states = 6 * 32.76e9 / 8 + 12 * 32.76e9 / 32
    saved = 2 * 16384 * 5120 * 64 / 8
    at_work = 2 * 16384 * (10 * 5120 + 4 * 27648) / 8 + 4 * 16384 * 5120
    logits = 8 * 16384 * 152064 / 8
    total = states + saved + at_work + logits + 3 * PROCESS_BYTES
    assert setup.peak("update") == pytest.approx(total, rel=1e-3)
