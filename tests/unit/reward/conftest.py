"""One judge for the tests that need one: two workers, no audits, at the level the machine gives."""

from collections.abc import Iterator

import pytest

from reward.config import JudgeConfig
from reward.judge import Judge


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    config = JudgeConfig(workers=2, audit_fraction=0.0, timeout_s=0.5, memory_bytes=256 << 20)
    with Judge(config) as judge:
        yield judge
