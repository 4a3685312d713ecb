"""How long refinements wait, on a GPU whose speed makes the arithmetic short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recipe.online_refiner.preflight.memory import ModelShape
from recipe.online_refiner.preflight.queueing import (
    EFFICIENCY,
    OPERATIONS_PER_BYTE,
    Load,
    waiting,
)

# 348 parameters and 16 bytes of cache a token; see test_memory.py.
SMALL = ModelShape(4, 2, 8, 4, 2, 10, tied=True)
ROLLOUTS = Load(SMALL, servers=2, tensor_parallel=1, requests=40, prompt_tokens=10,
                output_tokens=20, cache_tokens=300, most_at_once=1024)  # fmt: skip
BANDWIDTH = 1000.0
"""Rated bytes a second."""


def test_a_server_decodes_what_its_cache_holds_and_no_more_than_it_may() -> None:
    assert ROLLOUTS.at_once == 10
    assert replace(ROLLOUTS, most_at_once=4).at_once == 4
    assert replace(ROLLOUTS, requests=6).at_once == 3
    assert replace(ROLLOUTS, cache_tokens=-5).at_once == 1


def test_a_step_reads_weights_and_caches_and_computes_each_sequence() -> None:
    # Ten sequences of 10 + 20/2 tokens of 16 bytes, 696 bytes of weights, 696 operations each.
    read = (696 + 10 * 20 * 16) / (1000 * EFFICIENCY)
    computed = 10 * 696 / (1000 * OPERATIONS_PER_BYTE)
    assert ROLLOUTS.step_s(BANDWIDTH) == pytest.approx(read + computed)
    assert ROLLOUTS.step_s(2 * BANDWIDTH) == pytest.approx((read + computed) / 2)


def test_all_requests_take_as_many_rounds_as_the_servers_need() -> None:
    one = ROLLOUTS.request_s(BANDWIDTH)
    assert ROLLOUTS.all_s(BANDWIDTH) == pytest.approx(2 * one)  # 40 over 2 servers of 10


def test_refinements_that_keep_up_wait_for_their_own_decoding_alone() -> None:
    found = waiting(ROLLOUTS, ROLLOUTS, BANDWIDTH, shares_gpus=False)
    assert found.mean_s == found.last_s == pytest.approx(ROLLOUTS.request_s(BANDWIDTH))
    shared = waiting(ROLLOUTS, ROLLOUTS, BANDWIDTH, shares_gpus=True)
    assert shared.last_s == pytest.approx(2 * found.last_s)


def test_what_rollouts_do_not_cover_is_waited_for() -> None:
    few = replace(ROLLOUTS, most_at_once=1)
    backlog = few.all_s(BANDWIDTH) - ROLLOUTS.all_s(BANDWIDTH)
    own = few.request_s(BANDWIDTH)
    found = waiting(ROLLOUTS, few, BANDWIDTH, shares_gpus=False)
    assert backlog > 0
    assert found.last_s == pytest.approx(own + backlog)
    assert found.mean_s == pytest.approx(own + backlog / 2)


def test_a_refinement_in_blocks_waits_for_each_of_them_and_has_one_under_way() -> None:
    blocks = replace(ROLLOUTS, requests=6 * 5, in_turn=5, output_tokens=4)
    assert blocks.at_once == 3  # six refinements on two servers
    found = waiting(ROLLOUTS, blocks, BANDWIDTH, shares_gpus=False)
    assert found.last_s == pytest.approx(5 * blocks.request_s(BANDWIDTH))
