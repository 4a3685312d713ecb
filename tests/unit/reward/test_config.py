"""Settings are refused with key, value and fix."""

from typing import Any

import pytest

from reward.config import JudgeConfig, JudgeConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout": 3}, ("timeout=3", "timeout_s")),
        ({"timeout_s": 0}, ("timeout_s=0", "above zero")),
        ({"timeout_s": "4"}, ("timeout_s='4'", "float")),
        ({"memory_bytes": 1.5}, ("memory_bytes=1.5", "int")),
        ({"strict": 1}, ("strict=1", "bool")),
        ({"workers": True}, ("workers=True", "int")),
        ({"min_level": 4}, ("min_level=4", "0, 1, 2 or 3")),
        ({"min_level": 3, "max_level": 1}, ("min_level=3", "max_level")),
        ({"timeout_s": float("inf")}, ("timeout_s=inf", "finite")),
        ({"accepted": float("nan")}, ("accepted=nan", "finite")),
        ({"packages": "numpy..linalg"}, ("packages='numpy..linalg'", "names to import")),
        ({"packages": "[a.b]"}, ("packages='[a.b]'", "names to import")),
        ({"audit_fraction": 1.5}, ("audit_fraction=1.5", "0 to 1")),
        (
            {"extract": "fenced"},
            ("extract='fenced'", "only, first, last, longest, class_or_def, bare"),
        ),
    ],
)
def test_wrong_settings_name_key_value_and_fix(
    settings: dict[str, Any], words: tuple[str, str]
) -> None:
    with pytest.raises(JudgeConfigError) as error:
        JudgeConfig.from_mapping(settings)
    for word in words:
        assert word in str(error.value)


def test_packages_may_have_blanks_between() -> None:
    assert JudgeConfig(packages=" numpy, six,").package_names == ["numpy", "six"]


def test_a_module_within_a_package_may_be_named() -> None:
    assert JudgeConfig(packages="numpy.random").package_names == ["numpy.random"]


def test_settings_are_taken_over() -> None:
    config = JudgeConfig.from_mapping({"timeout_s": 2, "adaptive": True, "wrong_answer": -0.5})
    assert (config.timeout_s, config.adaptive, config.tiers.wrong_answer) == (2, True, -0.5)
