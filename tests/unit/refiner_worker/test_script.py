"""Letters that neither prompt nor rollout uses."""

import pytest

from refiner_worker.script import is_foreign


@pytest.mark.parametrize(
    ("text", "sources", "expected"),
    [
        ("print(1)", ("sum", "x = 2"), False),
        ("жук", ("sum", "x = 2"), True),
        ("жук", ("sum", "жаба"), False),
        ("", ("sum",), False),
        ("1 + 2 = 3", ("жук",), False),  # no letters
        ("ab жу", ("sum",), False),  # half is not most
        ("a жу", ("sum",), True),
        ("日本語", ("ひらがな",), False),  # written together
        ("한국어", ("日本語",), True),
        ("English", ("中文",), True),
        ("α", ("let alpha be",), True),
        ("let α be", ("let alpha be",), False),
    ],
)
def test_most_letters_decide(text: str, sources: tuple[str, ...], expected: bool) -> None:
    assert is_foreign(text, *sources) is expected
