"""Test programs that test nothing are refused before anything is run."""

import pytest

from reward.assertions import fault
from reward.problem import MalformedProblem, parse_problem

CHECK = "def check(candidate):\n"
PYTEST = "import pytest\n"
ONE_TEST = "def test_f(n=2):\n    assert f(n) == 4\n"


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
        (CHECK + "    assert (candidate(2) == 4, 'of two')\n", "asserts nothing"),
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
        (PYTEST + "def test_f(tmp_path):\n    assert f(2) == 4\n", "wants the fixtures tmp_path"),
        (PYTEST + "def test_f(n):\n    assert f(n) == 4\n", "wants the fixtures n"),
        (
            PYTEST + "@pytest.fixture\ndef n(capsys):\n    return 2\n"
            "def test_f(n):\n    assert f(n) == 4\n",
            "n wants the fixtures capsys",
        ),
        (
            PYTEST + "@pytest.mark.usefixtures('monkeypatch')\n"
            "def test_f():\n    assert f(2) == 4\n",
            "wants the fixtures monkeypatch",
        ),
        (
            PYTEST + "def test_f():\n    with pytest.warns(UserWarning):\n        f(2)\n"
            "    assert f(2) == 4\n",
            "warns asks for what stays",
        ),
        (PYTEST + "@pytest.mark.skip\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.skip(reason='no')\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.skipif(True, reason='no')\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.xfail\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.xfail(raises=ValueError)\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.parametrize('n', [])\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "@pytest.mark.parametrize('n', argvalues=())\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "pytestmark = pytest.mark.skip\n" + ONE_TEST, "asserts nothing"),
        (PYTEST + "pytestmark = [pytest.mark.skip]\n" + ONE_TEST, "asserts nothing"),
        ("class A(B):\n    pass\nclass B(A):\n    pass\n", "asserts nothing"),
    ],
)
def test_tests_that_cannot_tell_right_from_wrong_are_malformed(test: str, reason: str) -> None:
    assert reason in fault(test)
    with pytest.raises(MalformedProblem, match=reason):
        parse_problem({"entry_point": "f", "test": test})


CASE = "import unittest\nclass T(unittest.TestCase):\n"
UNITTEST = {
    "no tests": (CASE + "    def check_1(self):\n        self.assertEqual(f(2), 4)\n", "nothing"),
    "no assertions": (CASE + "    def test_1(self):\n        f(2)\n", "asserts nothing"),
    "only a set up": (CASE + "    def setUp(self):\n        self.assertTrue(f(2))\n", "nothing"),
    "a test skipped": (
        CASE + "    @unittest.skip('no')\n    def test_1(self):\n        self.assertTrue(f(2))\n",
        "asserts nothing",
    ),
    "all skipped": (
        CASE.replace("class", "@unittest.skip('no')\nclass")
        + "    def test_1(self):\n        self.assertEqual(f(2), 4)\n",
        "asserts nothing",
    ),
    "looks at logs": (
        CASE + "    def test_1(self):\n        with self.assertLogs():\n            f(2)\n",
        "assertLogs asks for what stays",
    ),
}


@pytest.mark.parametrize("case", UNITTEST)
def test_cases_of_unittest_that_cannot_fail_are_malformed(case: str) -> None:
    test, reason = UNITTEST[case]
    assert reason in fault(test)


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
        PYTEST + "@pytest.mark.skipif(1 > 2, reason='no')\n" + ONE_TEST,
        PYTEST + "@pytest.mark.xfail(strict=True)\n" + ONE_TEST,
        PYTEST + "@pytest.mark.skip\ndef test_e():\n    assert 0\n" + ONE_TEST,
        PYTEST + "@pytest.fixture(name='n')\ndef make():\n    return 2\n"
        "def test_f(n, request, subtests):\n    assert f(n) == 4\n",
        PYTEST + "NAMES = 'n, m'\n@pytest.mark.parametrize(NAMES, [(1, 1)])\n"
        "def test_f(n, m):\n    assert f(n) == m\n",
        PYTEST + "@pytest.mark.parametrize('n', [1])\nclass TestF:\n"
        "    def test_f(self, n):\n        assert f(n) == n\n",
        "class Base:\n    def test_f(self):\n        assert f(2) == 4\n"
        "class TestF(Base):\n    x = 1\n",
    ],
)
def test_tests_of_every_form_are_taken(test: str) -> None:
    assert fault(test) == ""
