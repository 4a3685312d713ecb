"""Which cross entropy an episode was logged with: what the policy had read, and on which tokens.

`ce` is in the reading that the run's constraint used, which `ce_reading` names; older runs have
none, and were teacher-forced. Self-fed, tokens that the policy was not asked for have 0 in it, and
`ce_asked` flags the others.
"""

from collections.abc import Mapping
from typing import Any

TEACHER_FORCING, SELF_FEEDING = "teacher_forcing", "self_feeding"
WORDS = {TEACHER_FORCING: "teacher-forced", SELF_FEEDING: "self-fed"}
"""How a reader is told."""


def reading_of(record: Mapping[str, Any]) -> str:
    """The reading of the column `ce`."""
    return SELF_FEEDING if record.get("ce_reading") == SELF_FEEDING else TEACHER_FORCING


def asked_tokens(record: Mapping[str, Any], count: int) -> list[bool]:
    """Which of the `count` tokens of a' the policy was asked for: all, if flags do not fit."""
    flags = record.get("ce_asked")
    if not isinstance(flags, list) or len(flags) != count:
        return [True] * count
    return [bool(flag) for flag in flags]
