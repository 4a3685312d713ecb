"""What a run was configured with, and in what two runs differ.

Runs are seeds of one arm only if their configurations agree in everything but the seed and what
cannot change a result (folders, names, logging, what a run does not read, keys that came with a
later version and have their defaults). Runs of one arm that differ in more are shown as variants,
each under the values in which it differs, and never averaged.
"""

import os
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recipe.analysis.flat_yaml import flat
from recipe.analysis.records import Finding
from recipe.analysis.unread_keys import Configuration, default_of, is_read

if TYPE_CHECKING:
    from recipe.analysis.runs import Run

INCIDENTAL = (
    *("run.*", "*seed", "*.experiment_name", "*.project_name", "*_dir", "*.logger*"),
    *("*profiler*", "*prometheus*", "*port", "ray_kwargs.*", "skip.*", "monitor.*"),
    *("trainer.save_freq", "trainer.test_freq", "trainer.val_before_train", "trainer.resume*"),
    *("trainer.max_*_ckpt_to_keep", "trainer.log_val_generations", "*.checkpoint.*"),
    *("trainer.esi_redundant_time", "*.log_*", "*hostname*", "*timeout*"),
    # No response is cut by it: a preflight refuses a length that a row does not fit into.
    "actor_rollout_ref.rollout.max_model_len",
)
"""Keys that may differ between the seeds of one arm."""
ARM_DEFINING = (
    *("constraint.*", "refiner.*", "algorithm.use_kl_in_reward", "algorithm.kl_ctrl.*"),
    *("algorithm.kl_penalty", "*.use_kl_loss", "*.kl_loss_*", "*.policy_loss.loss_mode"),
)
"""Keys in which arms differ on purpose: the constraint and what it needs."""
REFINED_ESTIMATOR = "refined_"
"""How the names of the estimators begin that take the constraint's penalty from the advantages."""
RECORDED = {"kind": "constraint.kind", "inject": "constraint.inject", "lambda": "constraint.lambda"}
"""What run.json says after defaults were filled in, which the configuration leaves null."""


def read_configuration(
    path: Path, info: Mapping[str, Any]
) -> tuple[Configuration, tuple[Finding, ...]]:
    """The flattened configuration of a run folder; empty, with a finding, if it is missing or
    broken.
    """
    file = path / "config.yaml"
    try:
        found = flat(file.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return {}, (Finding(file, f"cannot be read ({error.strerror}): configuration unknown"),)
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}, (Finding(file, "is not readable YAML: configuration unknown"),)
    if found is None:
        return {}, (Finding(file, "holds no keys: configuration unknown"),)
    if "constraint.kind" in found:
        found |= {
            RECORDED[key]: number_text(info[key]) for key in RECORDED if info.get(key) is not None
        }
    return found, ()


def number_text(value: object) -> str:
    """A number, or the text of one, in its shortest form; other text as it is."""
    try:
        return f"{float(str(value)):g}"
    except ValueError:
        return str(value)


def differences(a: "Run", b: "Run") -> dict[str, tuple[str, str]]:
    """Every key that matters and in which two configured runs differ, with both values."""
    keys = sorted({*a.configuration, *b.configuration})
    return {key: (value_of(a, key), value_of(b, key)) for key in keys if not _same(a, b, key)}


def beyond_the_constraint(found: Mapping[str, object]) -> list[str]:
    """Of the keys in which two arms differ, those that are not the constraint's."""
    return [key for key in found if not matches(key, ARM_DEFINING)]


def matches(key: str, patterns: Iterable[str]) -> bool:
    """Whether the key is one of a list like `INCIDENTAL`."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def value_of(run: "Run", key: str) -> str:
    """The key's value as its configuration has it."""
    return run.configuration.get(key, "absent")


def _same(a: "Run", b: "Run", key: str) -> bool:
    """Equal text, equal numbers, the same estimator with or without the penalty, paths that lie in
    the same place as seen from the run, or a key that cannot change a result or that neither reads.
    """
    default = default_of(key)
    first, second = (
        run.configuration.get(key, default).removeprefix(REFINED_ESTIMATOR) for run in (a, b)
    )
    if first == second or number_text(first) == number_text(second) or matches(key, INCIDENTAL):
        return True
    if not is_read(key, a.configuration) and not is_read(key, b.configuration):
        return True
    if not (first.startswith("/") and second.startswith("/")):
        return False
    return os.path.relpath(first, _home(a)) == os.path.relpath(second, _home(b))


def _home(run: "Run") -> str:
    return run.configuration.get("run.dir") or str(run.path.absolute())
