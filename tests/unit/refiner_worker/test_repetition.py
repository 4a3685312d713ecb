"""What counts as an endless repetition."""

import pytest

from refiner_worker.repetition import loops


@pytest.mark.parametrize(
    ("token_ids", "expected"),
    [
        ([7] * 16, True),
        ([1, 2, 3, *[7] * 16], True),
        ([7] * 15, False),  # an indentation may be long
        ([*[7] * 16, 8], False),  # it got out of it
        ([1, 2, 3, 4, 5] * 4, True),
        ([9, *[1, 2, 3, 4, 5] * 4, 1, 2], True),  # cut within the stretch
        ([1, 2, 3, 4, 5] * 3, False),
        (list(range(200)), False),
        (list(range(65)) * 4, False),  # too long a stretch to be sure of
        ([], False),
    ],
)
def test_a_loop_is_a_stretch_four_times_over(token_ids: list[int], expected: bool) -> None:
    assert loops(token_ids) is expected
