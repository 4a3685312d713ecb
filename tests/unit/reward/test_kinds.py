"""Each kind of fault that was found in the judge is tested with at least three variants."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO_ROOT = Path(__file__).resolve().parents[3]
ADVERSARIAL, UNIT = "tests/adversarial/", "tests/unit/reward/"
AT_LEAST = 3

# Kind: the tests of it, and which of their parameters belong to it.
KINDS = {
    "knows its company": (ADVERSARIAL + "test_hedging.py::test_knowing_the_company_", ""),
    "guesses": (UNIT + "test_attempt.py::test_guessing_is_worth_the_same_", ""),
    "reads its test": (ADVERSARIAL + "test_secrets.py::test_a_candidate_has_never_had_", ""),
    "reads siblings' memory": (ADVERSARIAL + "test_secrets.py::.*_is_left_in_memory", ""),
    "reads the shared page": (ADVERSARIAL + "test_secrets.py::.*_left_in_the_shared_page", ""),
    "no check": (UNIT + "test_assertions.py::test_tests_that_cannot_", "METADATA|import math|^f"),
    "vacuous functions": (UNIT + "test_assertions.py::test_tests_that_cannot_", "def test_|pytest"),
    "vacuous cases": (UNIT + "test_assertions.py::test_cases_of_unittest_", ""),
    "asks nothing": (ADVERSARIAL + "test_assertions.py::test_a_test_that_asks_nothing_", ""),
    "forms of tests": (ADVERSARIAL + "test_assertions.py::test_every_form_runs_", ""),
    "pytest's forms": (ADVERSARIAL + "test_pytest_forms.py::test_a_form_has_the_verdict_", ""),
    "ends a loop": (ADVERSARIAL + "test_assertions.py::test_no_exception_ends_a_", ""),
    "redefines helpers": (ADVERSARIAL + "test_assertions.py::test_helpers_of_the_prompt_", ""),
    "forges its end": (ADVERSARIAL + "test_forged_ends.py::test_the_kernel_is_believed_", ""),
    "text that looks like numbers": (UNIT + "test_compare.py::test_tokens_that_differ", ""),
    "blanks that are text": (UNIT + "test_compare.py::test_outputs_that_differ", r"\\x|\\u"),
    "assertions without end": (UNIT + "test_attempt.py::test_assertions_never_have_more_", ""),
    "noise on standard error": (
        ADVERSARIAL + "test_benign_kinds.py::test_habits_", "stderr|traceback|descriptor|warnings",
    ),
    "debug prints in calls": (ADVERSARIAL + "test_benign_kinds.py::test_debug_prints_in_", ""),
    "limits of the stack": (ADVERSARIAL + "test_benign_kinds.py::test_habits_", "stack"),
    "its own file": (ADVERSARIAL + "test_benign_kinds.py::test_habits_", "its "),
    "destructors": (ADVERSARIAL + "test_benign_kinds.py::test_what_destructors_print_", ""),
    "threads' stacks": (ADVERSARIAL + "test_benign_kinds.py::test_threads_with_large_", ""),
    "long integers": (UNIT + "test_cli.py::test_integers_of_any_sensible_length_", ""),
    "unreadable lines": (UNIT + "test_cli.py::test_a_line_that_cannot_be_read_", ""),
    "lines that are no records": (UNIT + "test_cli.py::test_a_line_that_is_no_record_", ""),
    "damaged files": (UNIT + "test_cli.py::test_a_damaged_file_", ""),
    "files that are no text": (UNIT + "test_cli.py::test_a_line_that_is_no_text_", ""),
    "several blocks": (UNIT + "test_extract.py::test_of_several_blocks_", ""),
    "fences of other forms": (UNIT + "test_extract.py::test_one_block_is_the_program", ""),
    "blocks in lists and quotes": (UNIT + "test_page.py::test_blocks_in_lists_and_quotes_", ""),
    "hidden blocks": (UNIT + "test_page.py::test_nothing_hidden_is_found", ""),
}  # fmt: skip


@functools.cache
def _collected() -> dict[str, set[str]]:
    """Per test function its variants: the parameters that pytest collects, of either mode."""
    files = sorted({test.partition("::")[0] for test, _ in KINDS.values()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *files], cwd=REPO_ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, set[str]] = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(tests/[^\[]+)\[(?:fast-|strict-)?(.*)\]", line):
            found.setdefault(match[1], set()).add(match[2])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_at_least_three_variants(kind: str) -> None:
    test, variant = KINDS[kind]
    variants = {
        one
        for name, parameters in _collected().items()
        if re.match(test, name)
        for one in parameters
        if re.search(variant, one)
    }
    assert len(variants) >= AT_LEAST, variants
