"""What PyTorch's tracker of allocations finds of an update under FSDP2, against the estimate.

Eight ranks whose collectives do nothing, on the CPU: sizes are right and values are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from memory_table import TRACKED, TRACKED_RANKS
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipe.online_refiner.preflight.memory import ModelShape, trained


@pytest.fixture
def ranks() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", rank=0, world_size=TRACKED_RANKS, store=FakeStore())
    yield init_device_mesh("cpu", (TRACKED_RANKS,))
    dist.destroy_process_group()


def sharded(config: Qwen2Config, ranks: DeviceMesh) -> Qwen2ForCausalLM:
    """A model as verl shards it: layers, embedding and output layer each on their own."""
    model = Qwen2ForCausalLM(config)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for part in (*model.model.layers, model.model.embed_tokens, model.lm_head, model):
        fully_shard(part, mesh=ranks, mp_policy=policy)
    return model


def peak_of_updates(config: Qwen2Config, tokens: int, ranks: DeviceMesh) -> dict[str, int]:
    """Bytes by kind at the peak of two updates."""
    model = sharded(config, ranks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    ids = torch.randint(0, config.vocab_size, (1, tokens))
    with tracker:
        for _ in range(2):
            logits = model(input_ids=ids).logits.squeeze(0)
            torch.nn.functional.cross_entropy(logits, ids.view(-1)).backward()
            optimizer.step()
            optimizer.zero_grad()
            tracker.reset_mod_stats()  # by module, which a second pass would count twice
    (found,) = tracker.get_tracker_snapshot("peak").values()
    kinds: dict[Any, int] = dict(found)
    return {getattr(kind, "name", str(kind)): size for kind, size in kinds.items()}


def config_of(shape: ModelShape) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        use_cache=False,
        attn_implementation="sdpa",
    )


def test_an_update_takes_what_the_page_says_and_no_more_than_the_estimate(
    ranks: DeviceMesh,
) -> None:
    found = peak_of_updates(config_of(TRACKED.shape), TRACKED.tokens, ranks)
    model = trained(TRACKED.shape, TRACKED.sharding)
    assert found["OPT"] == pytest.approx(model.optimizer, rel=0.001)
    assert found["Total"] == pytest.approx(TRACKED.peak, rel=0.001)
    assert 0.5 * TRACKED.estimate < found["Total"] < TRACKED.estimate, found


def test_weights_are_the_formulas(ranks: DeviceMesh) -> None:
    parameters = sharded(config_of(TRACKED.shape), ranks).parameters()
    size = sum(part.to_local().nbytes for part in parameters if isinstance(part, DTensor))
    assert size == pytest.approx(trained(TRACKED.shape, TRACKED.sharding).weights, rel=0.001)
