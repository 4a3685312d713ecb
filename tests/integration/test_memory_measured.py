"""What PyTorch's tracker of allocations finds of an update under FSDP2, against the estimate.

Eight ranks whose collectives do nothing, on the CPU: sizes are right and values are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipe.online_refiner.preflight.memory import (
    ModelShape,
    Sharding,
    activation_bytes,
    trained,
)

RANKS, TOKENS = 8, 512


@pytest.fixture
def ranks() -> Iterator[None]:
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    dist.destroy_process_group()


def sharded(config: Qwen2Config) -> Qwen2ForCausalLM:
    """A model as verl shards it: layers, embedding and output layer each on their own."""
    model = Qwen2ForCausalLM(config)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    mesh = init_device_mesh("cpu", (RANKS,))
    for part in (*model.model.layers, model.model.embed_tokens, model.lm_head, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return model


def peak_of_updates(config: Qwen2Config) -> dict[str, int]:
    """Bytes by kind at the peak of two updates."""
    model = sharded(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    ids = torch.randint(0, config.vocab_size, (1, TOKENS))
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


def test_an_update_takes_no_more_than_the_estimate_and_states_exactly_as_much(ranks: None) -> None:
    config = Qwen2Config(
        hidden_size=256,
        num_hidden_layers=6,
        intermediate_size=1024,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=4096,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )
    found = peak_of_updates(config)
    shape, sharding = ModelShape.from_config(config.to_dict()), Sharding(gpus=RANKS)
    model = trained(shape, sharding)
    estimate = model.in_use + activation_bytes(shape, TOKENS, sharding)
    assert found["OPT"] == pytest.approx(model.optimizer, rel=0.001)
    total = found["Total"]
    assert 0.5 * estimate < total < estimate, (found, estimate)
