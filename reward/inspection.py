"""What the judge finds before a run starts: its settings, and the isolation of this node."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from reward.config import JudgeConfig, JudgeConfigError
from reward.sandbox.client import SandboxError, ZygoteClient
from reward.sandbox.wire import Level
from reward.traits import Inspection


def inspect_judge(settings: Mapping[str, Any]) -> Inspection:
    """Whether the settings can be, and this node isolates programs as they ask for."""
    try:
        judge = JudgeConfig.from_mapping(settings)
    except (JudgeConfigError, TypeError) as error:
        return Inspection((str(error),))
    try:
        level = _isolation_of_this_node(judge.max_level)
    except SandboxError as error:
        return Inspection(
            (f"the sandbox does not start on this node: {error}. Fix: see docs/judge.md",)
        )
    if level < judge.min_level:
        fault = (
            f"min_level={judge.min_level}: this node isolates programs at level {int(level)}. Fix: "
            "`python -m reward.selftest` says what is missing; or lower min_level"
        )
        return Inspection((fault,), int(level))
    return Inspection((), int(level))


@functools.cache
def _isolation_of_this_node(max_level: int) -> Level:
    zygote = ZygoteClient(Level.NONE, Level(max_level))
    zygote.close()
    return zygote.level
