"""One set of names for what is judged, in files and in requests."""

from typing import Any

import pytest

from reward.extract import Extract
from reward.submission import NoSubmission, program_in, response_in

SHOWN = "So:\n```python\nprint(1)\n```"
CODE = "print(1)\n"


@pytest.mark.parametrize(
    ("record", "program"),
    [
        ({"code": CODE}, CODE),
        ({"code": SHOWN}, SHOWN),
        ({"response": SHOWN}, CODE),
        ({"solution": SHOWN}, CODE),
        ({"response": SHOWN, "solution": SHOWN}, CODE),
        ({"response": SHOWN, "code": CODE}, CODE),
        ({"solution": SHOWN, "code": None}, CODE),
        ({"response": "no program"}, None),
    ],
)
def test_the_program_is_found_by_any_of_its_names(
    record: dict[str, Any], program: str | None
) -> None:
    assert program_in(record, Extract.LONGEST) == program


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "give the program as `code`, or as `response`"),
        ({"completion": SHOWN}, "give the program"),
        ({"code": 1, "response": None}, "give the program"),
        ({"response": SHOWN, "solution": "x"}, "`response` and `solution` differ"),
        ({"response": SHOWN, "code": "print(2)"}, "`code` is not the program in `response`"),
        ({"solution": "no program", "code": CODE}, "`code` is not the program in `response`"),
    ],
)
def test_a_record_that_says_nothing_or_two_things_is_refused(
    record: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NoSubmission, match=reason):
        program_in(record, Extract.LONGEST)


def test_the_study_of_rules_reads_responses_by_the_same_names() -> None:
    assert response_in({"solution": SHOWN}) == response_in({"response": SHOWN}) == SHOWN
    assert response_in({"code": CODE}) is None
