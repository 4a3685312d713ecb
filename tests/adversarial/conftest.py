"""Judges for programs that are judged one after another, by one zygote, so that they may meet."""

from collections.abc import Iterator

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge


@pytest.fixture(scope="module", params=[False, True], ids=["fast", "strict"])
def one_worker(request: pytest.FixtureRequest) -> Iterator[Judge]:
    config = JudgeConfig(
        workers=1,
        strict=request.param,
        timeout_s=0.3,
        max_timeouts=1,
        memory_bytes=256 << 20,
        audit_fraction=0.0,
        retries=0,
    )
    with Judge(config) as judge:
        yield judge
