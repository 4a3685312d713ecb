"""What waits in a node's memory, worked out by hand for a model of 348 parameters."""

from recipe.online_refiner.preflight.host import (
    ROW_BYTES_PER_TOKEN,
    HostMemory,
    Tenant,
    host_memory,
)
from recipe.online_refiner.preflight.memory import ModelShape, Sharding

# 348 parameters; see test_memory.py.
SMALL = ModelShape(4, 2, 8, 4, 2, 10, tied=True)
OFFLOADED = Sharding(gpus=8, offloads_weights=True, offloads_optimizer=True)
MEGATRON = Sharding(
    8, megatron=True, tensor_parallel=2, offloads_weights=True, offloads_optimizer=True
)


def parts_of(*tenants: tuple[str, Tenant]) -> dict[str, int]:
    found = host_memory(
        dict(tenants), None, gpus_per_node=4, processes=0, batch_tokens=0, saves=False
    )
    return {name: size for name, size in found.parts.items() if size}


def test_fsdp_has_a_nodes_share_of_twelve_bytes_a_parameter() -> None:
    assert parts_of(("actor", Tenant(SMALL, OFFLOADED))) == {"actor": 4 * (174 + 348)}
    reference = Tenant(SMALL, OFFLOADED, trains=False)
    assert parts_of(("reference", reference)) == {"reference": 4 * 174}
    assert parts_of(("actor", Tenant(SMALL, Sharding(gpus=8)))) == {}


def test_with_megatron_each_node_has_all_weights() -> None:
    assert parts_of(("actor", Tenant(SMALL, MEGATRON))) == {"actor": 4 * (348 + 522)}


def test_a_sleeping_refiner_rows_and_processes_are_counted() -> None:
    actor = {"actor": Tenant(SMALL, Sharding(gpus=8))}
    found = host_memory(
        actor, (SMALL, 2), gpus_per_node=4, processes=1000, batch_tokens=10, saves=False
    )
    assert found.parts == {
        "actor": 0,
        "refiner asleep": 2 * 348 * 4 // 2,
        "rows": 10 * ROW_BYTES_PER_TOKEN,
        "processes": 1000,
    }
    assert found.steady == 1392 + 1280 + 1000


def started(tenant: Tenant, saves: bool) -> HostMemory:
    return host_memory(
        {"actor": tenant}, None, gpus_per_node=4, processes=0, batch_tokens=0, saves=saves
    )


def test_the_larger_of_start_and_checkpoint_comes_on_top() -> None:
    tied = started(Tenant(SMALL, Sharding(gpus=8), read_by_each=True), saves=True)
    assert (tied.start, tied.checkpoint) == (4 * 348 * 4, 12 * 348 * 4 // 8)
    assert tied.peak == tied.start
    untied = started(Tenant(SMALL, Sharding(gpus=8)), saves=True)
    assert untied.start == 4 * 348
    assert untied.peak == 12 * 348 * 4 // 8
    assert started(Tenant(SMALL, Sharding(gpus=8)), saves=False).checkpoint == 0
