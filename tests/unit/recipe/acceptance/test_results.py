"""How checks are shown, and that a fault in one hides no other."""

import json

from recipe.acceptance.results import Check, Status, as_json, judged, summary, table

CHECKS = [
    Check("weights", Status.PASS, "3 of 4 changed", "some change", {"changed": 3}),
    Check("memory", Status.FAIL, "a long figure " * 10, "at most 40 GiB"),
]


def test_a_fault_of_a_judge_is_a_failed_check() -> None:
    def judge(seen: dict[str, float]) -> list[Check]:
        return [Check("speed", Status.PASS, f"{seen['absent']}", "")]

    (check,) = judged("speed", judge, {})
    assert (check.name, check.status) == ("speed", Status.FAIL)
    assert "KeyError: 'absent'" in check.figure


def test_the_table_has_every_figure_whole_and_is_narrow() -> None:
    lines = table(CHECKS).splitlines()
    assert max(map(len, lines)) <= 140
    assert lines[2].split()[:2] == ["weights", "pass"]
    assert " ".join(table(CHECKS).split()).count("figure") == 1 + 10


def test_the_summary_counts_and_the_json_has_the_machine_and_the_numbers() -> None:
    assert summary(CHECKS) == "1 passed, 1 failed"
    content = json.loads(as_json(CHECKS, {"card": "NVIDIA H100"}))
    assert content["card"] == "NVIDIA H100"
    assert content["checks"][0]["numbers"] == {"changed": 3}
    assert [check["status"] for check in content["checks"]] == ["pass", "FAIL"]
