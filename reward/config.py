"""The judge's settings, checked once."""

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.extract import Extract
from reward.verdict import Tiers

POOLS = ("auto", "process", "ray")


class JudgeConfigError(ValueError):
    """A setting that cannot be; the message names the key, the value and the fix."""


@dataclass(frozen=True)
class JudgeConfig:
    """All settings of the judge; every key may stand in verl's `reward_kwargs`.

    Attributes:
        timeout_s: CPU time of one test. Its wall limit is 2 * timeout_s + 1.
        program_timeout_s: wall time of all of a program's tests; tests not run count as failed.
        max_timeouts: give up on a program after so many time-outs.
        memory_bytes: address space of a program beyond the interpreter's own.
        output_bytes: stdout, stderr or result of one test; raised to twice the expected output.
        strict: each test in a process of its own, no fast path.
        confirmations: after so many failures of the fast path have been reproduced in a process
            of their own, the others are believed; 0 re-runs them all. Acceptance never depends on
            it: it takes every test, and a program with a confirmed failure is not accepted.
        audit_fraction: share of fast acceptances that are judged again in strict mode.
        min_level: isolation below this is refused: 3 all, 2 no namespaces, 1 no Landlock, 0 none.
        max_level: go no higher than this (for comparing levels).
        adaptive: reward the share of tests passed, see `reward.verdict.score`.
        compile_error, runtime_error, wrong_answer, accepted: the tiers.
        extract: which code block of a response is its program, of those declared as Python: only
            (none if there are several), first, last, longest, class_or_def (the last with a
            definition); or bare, the whole response. Training and evaluation share this setting.
        drop_prompt_examples: leave out tests whose input and output stand in the question (of the
            problem's record, or of `extra_info`) where at least `min_tests` others remain.
        min_tests: see `drop_prompt_examples`.
        checker_timeout_s: CPU time of a problem's own checker, per output that it looks at.
        workers: programs judged at once; 0 means one per available core.
        retries: new attempts after a failure of the judge itself.
        recycle_after: programs after which a zygote is replaced.
        packages: third-party packages and single modules that programs may import,
            comma-separated.
        show_failing_test: let `compute_score` return the first failing test, expected output
            included, for a refiner that may see it (`refiner.feedback: failing_test`).
        pool: where `compute_score` judges: process (here), ray (actors shared by all processes of a
            node), or auto, which is ray where Ray is running.
        pool_actors: Ray actors per node, the workers shared out among them; 0 means one per 16.
        pool_queue: programs that one process may have waiting or running in an actor, per worker.
    """

    timeout_s: float = 4.0
    program_timeout_s: float = 60.0
    max_timeouts: int = 2
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 20
    strict: bool = False
    confirmations: int = 1
    audit_fraction: float = 0.01
    min_level: int = 1
    max_level: int = 3
    adaptive: bool = False
    compile_error: float = -1.0
    runtime_error: float = -0.6
    wrong_answer: float = -0.3
    accepted: float = 1.0
    extract: str = "longest"
    drop_prompt_examples: bool = False
    min_tests: int = 2
    checker_timeout_s: float = 4.0
    workers: int = 0
    retries: int = 2
    recycle_after: int = 2000
    packages: str = "numpy"
    show_failing_test: bool = False
    pool: str = "auto"
    pool_actors: int = 0
    pool_queue: int = 8

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, field.type)
        for key in ("timeout_s", "program_timeout_s", "checker_timeout_s", "memory_bytes",
                    "output_bytes", "max_timeouts", "recycle_after", "min_tests",
                    "pool_queue"):  # fmt: skip
            self._check(key, getattr(self, key) > 0, "use a number above zero")
        for key in ("confirmations", "workers", "retries", "pool_actors"):
            self._check(key, getattr(self, key) >= 0, "use zero or more")
        for key in ("min_level", "max_level"):
            self._check(key, getattr(self, key) in (0, 1, 2, 3), "use 0, 1, 2 or 3")
        self._check("min_level", self.min_level <= self.max_level, "raise max_level to it")
        self._check("audit_fraction", 0 <= self.audit_fraction <= 1, "use a share of 0 to 1")
        choices = [choice.value for choice in Extract]
        self._check("extract", self.extract in choices, f"use one of {', '.join(choices)}")
        self._check("pool", self.pool in POOLS, f"use one of {', '.join(POOLS)}")
        parts = [part for name in self.package_names for part in name.split(".")]
        names_only = all(map(str.isidentifier, parts))
        self._check("packages", names_only, "use names to import, with commas between")
        for key in ("compile_error", "runtime_error", "wrong_answer"):
            below = getattr(self, key) < self.accepted
            self._check(key, below, f"use a number below accepted={self.accepted}")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> "JudgeConfig":
        """The configuration with these keys set.

        Raises:
            JudgeConfigError: an unknown key, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key, value in settings.items():
            if key not in known:
                names = ", ".join(sorted(known))
                raise JudgeConfigError(
                    f"judge setting {key}={value!r} is unknown; use one of {names}"
                )
        return cls(**settings)

    @property
    def tiers(self) -> Tiers:
        return Tiers(self.compile_error, self.runtime_error, self.wrong_answer, self.accepted)

    @property
    def package_names(self) -> list[str]:
        return [name.strip() for name in self.packages.split(",") if name.strip()]

    @property
    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))

    def _check(self, key: str, good: bool, fix: str) -> None:
        if not good:
            raise JudgeConfigError(f"judge setting {key}={getattr(self, key)!r}: {fix}")

    def _check_type(self, key: str, kind: Any) -> None:
        value = getattr(self, key)
        wanted = (int, float) if kind is float else kind
        good = isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
        self._check(key, good, f"use a value of type {kind.__name__}")
        self._check(key, kind is not float or math.isfinite(value), "use a finite number")


def add_settings_option(parser: argparse.ArgumentParser) -> None:
    """`--set KEY=VALUE`, whose values `parse_settings` reads."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of reward.config.JudgeConfig, such as timeout_s=2; repeatable",
    )


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value` words; values are JSON, or text if they are not.

    Raises:
        JudgeConfigError: a word without "=".
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator:
            raise JudgeConfigError(f"judge setting {pair!r} has no value; write KEY=VALUE")
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return settings
