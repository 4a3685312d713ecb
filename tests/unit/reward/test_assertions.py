"""Test programs that test nothing are refused before anything is run."""

import pytest

from reward.assertions import fault
from reward.problem import MalformedProblem, parse_problem

CHECK = "def check(candidate):\n"


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("METADATA = {}\n", "asserts nothing"),
        ("import math\n", "asserts nothing"),
        ("f(2)\n", "asserts nothing"),
        ("def verify(candidate):\n    assert candidate(2) == 4\n", "asserts nothing"),
        (CHECK + "    candidate(2)\n", "asserts nothing"),
        (CHECK + "    candidate(2) == 4\n", "asserts nothing"),
        (CHECK + "    pass\n", "asserts nothing"),
        (CHECK + "    assert True\n", "asserts nothing"),
        (CHECK + "    pass\ndef test_f():\n    assert f(2) == 4\n", "asserts nothing"),
        ("def test_f():\n    f(2)\n", "asserts nothing"),
        ("def helper():\n    assert f(2) == 4\ndef test_f():\n    f(2)\n", "asserts nothing"),
        ("class Checks:\n    def test_1(self):\n        assert f(2) == 4\n", "asserts nothing"),
        (
            "import unittest\nclass T(unittest.TestCase):\n"
            "    def check_1(self):\n        self.assertEqual(f(2), 4)\n",
            "asserts nothing",
        ),
        ("if __name__ == '__main__':\n    unittest.main()\n", "asserts nothing"),
        (CHECK + "    assert candidate(2) = 4\n", "does not compile"),
        (CHECK, "does not compile"),
        ("assert f(2) == 4\nreturn\n", "does not compile"),
        ("(" * 1000 + ")" * 1000, "does not compile"),
        ("assert f(2) == '\0'", "does not compile"),
        ("def test_f(tmp_path):\n    assert f(2) == 4\n", "wants the fixtures tmp_path"),
    ],
)
def test_tests_that_cannot_tell_right_from_wrong_are_malformed(test: str, reason: str) -> None:
    assert reason in fault(test)
    with pytest.raises(MalformedProblem, match=reason):
        parse_problem({"entry_point": "f", "test": test})


@pytest.mark.parametrize(
    "test",
    [
        CHECK + "    assert candidate(2) == 4\n",
        CHECK + "    if candidate(2) != 4:\n        raise ValueError\n",
        "def same(a, b):\n    assert a == b\n" + CHECK + "    same(candidate(2), 4)\n",
        "import numpy as np\n" + CHECK + "    np.testing.assert_allclose(candidate(2), 4)\n",
        "class Judge:\n    def see(self, a):\n        assert a\n"
        + CHECK
        + "    Judge().see(candidate(2))",
        "assert f(2) == 4\n",
        "for n in range(3):\n    assert f(n) == n * n\n",
        "def test_f(n=2):\n    assert f(n) == 4\n",
        "import pytest\n@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_f(n):\n    assert f(n) == n * n\n",
        "import unittest\nclass T(unittest.TestCase):\n"
        "    def test_1(self):\n        self.assertEqual(f(2), 4)\n",
        "from unittest import TestCase\nclass B(TestCase):\n    pass\n"
        "class T(B):\n    def test_1(self):\n        self.fail()\n",
        CHECK + "    assert candidate(1) == " + "9" * 5000 + "\n",
    ],
)
def test_tests_of_every_form_are_taken(test: str) -> None:
    assert fault(test) == ""
