"""The judge as Ray actors, on a real local cluster."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from reward.apps import compute_score

ray = pytest.importorskip("ray")

TRUTH = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
RIGHT = "```python\nprint(sum(map(int, input().split())))\n```"
WRONG = "```python\nprint(3)\n```"
SLOW = "```python\nimport time\ntime.sleep(1)\n```"
SETTINGS = {"workers": 2, "pool_actors": 2, "timeout_s": 5.0, "audit_fraction": 0.0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers lack this module
    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


async def _scores(answers: list[str], **settings: object) -> list[dict]:
    return await asyncio.gather(
        *(
            compute_score("apps", answer, TRUTH, {}, **{**SETTINGS, **settings})
            for answer in answers
        )
    )


def _judge_actors() -> list[str]:
    return [name for name in ray.util.list_named_actors() if name.startswith("judge-")]


def test_programs_are_judged_in_actors_that_are_found_again(cluster: None) -> None:
    for _ in range(2):  # the second time from another event loop
        verdicts = [score["verdict"] for score in asyncio.run(_scores([RIGHT, WRONG] * 20))]
        assert verdicts == ["accepted", "wrong_answer"] * 20
        assert len(_judge_actors()) == 2


def test_a_worker_process_shares_the_actors(cluster: None) -> None:
    @ray.remote
    def judge_there() -> list[str]:
        return [score["verdict"] for score in asyncio.run(_scores([RIGHT, WRONG]))]

    asyncio.run(_scores([RIGHT]))
    before = set(_judge_actors())
    assert ray.get(judge_there.remote()) == ["accepted", "wrong_answer"]
    assert set(_judge_actors()) == before


def test_actors_that_die_cost_no_program(cluster: None) -> None:
    async def run() -> list[dict]:
        task = asyncio.create_task(_scores([SLOW, RIGHT] * 4))
        await asyncio.sleep(1.5)
        for name in _judge_actors():
            os.kill(await ray.get_actor(name).pid.remote(), signal.SIGKILL)
        return await task

    scores = asyncio.run(run())
    assert [score["verdict"] for score in scores] == ["wrong_answer", "accepted"] * 4
    assert all(score["judge_failed"] == 0.0 for score in scores)
