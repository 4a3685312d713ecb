"""Test programs as the judge reads them before it runs them: does this one test anything?

A test program in HumanEval's form defines `check`; others hold assertions at the top, functions of
pytest, or cases of unittest (BigCodeBench). What none of these would run tests nothing, and accepts
every program; so does a test that is skipped, or may fail.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reward import marks
from reward.jsontext import any_length
from reward.marks import Definition, Function, last_name

_PREFIX = "test"
_ASSERTING = ("assert", "fail", "raises")


class _Root(NamedTuple):
    """What is run by itself, and the marks that its class or module gives it."""

    node: ast.stmt
    marks: list[ast.expr]


def parsed(source: str) -> ast.Module:
    """The syntax tree of a problem's own code. Raises SyntaxError if there is none."""
    try:
        with warnings.catch_warnings(action="ignore"), any_length():
            tree = ast.parse(source)
            compile(tree, "<problem>", "exec")
            return tree
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error)) from error


def compiles(source: str) -> bool:
    """Whether a problem's own code compiles."""
    try:
        parsed(source)
    except SyntaxError:
        return False
    return True


def fault(test: str) -> str:
    """Why a test program cannot tell a right program from a wrong one; empty if it may."""
    try:
        tree = parsed(test)
    except SyntaxError as error:
        return f"the test does not compile: {error}"
    fixtures = marks.fixtures(tree) if marks.imports_pytest(tree) else {}
    defined = fixtures | {node.name: node for node in tree.body if isinstance(node, Definition)}
    roots = list(_roots(tree, defined))
    reached = list(_reached((root.node for root in roots), defined))
    if not any(map(_asserts, reached)):
        return "the test asserts nothing that would be run"
    if name := marks.looks_elsewhere(tree):
        return f"{name} asks for what stays in the program's own process"
    if "pytest_generate_tests" in defined:  # which may give any parameter
        return ""
    asking = [root for root in roots if getattr(root.node, "name", "") != "check"]
    asking += [_Root(node, []) for node in reached if node in fixtures.values()]
    for node, given in asking:
        if isinstance(node, Function):
            names = set(marks.wanted(node, given)) - fixtures.keys()
            names -= marks.HARMLESS_FIXTURES if marks.imports_pytest(tree) else set()
            if names:
                missing = ", ".join(sorted(names))
                return f"{node.name} wants the fixtures {missing}, which are not there"
    return ""


def _roots(tree: ast.Module, defined: dict[str, Definition]) -> Iterator[_Root]:
    """What is run: statements at the top, and `check`, or else test functions and test classes.

    Tests that are skipped or may fail are left out.
    """
    yield from (_Root(node, []) for node in tree.body if not isinstance(node, Definition))
    if isinstance(defined.get("check"), Function):
        yield _Root(defined["check"], [])
        return
    of_all = marks.of_module(tree)
    for name, node in defined.items():
        if marks.never_fails([*of_all, *node.decorator_list]):
            continue
        if isinstance(node, ast.ClassDef):
            if _is_case(node, defined):
                given = [*of_all, *node.decorator_list]
                yield from (_Root(n, given) for n in _body(node, defined) if _is_method(n))
        elif name.startswith(_PREFIX):
            yield _Root(node, of_all)


def _body(node: ast.ClassDef, defined: dict[str, Definition]) -> Iterator[ast.stmt]:
    """What a class holds, with what it inherits from others of the test program."""
    yield from node.body
    others = {name: one for name, one in defined.items() if one is not node}
    for base in node.bases:
        if isinstance(known := others.get(last_name(base)), ast.ClassDef):
            yield from _body(known, others)


def _is_case(node: ast.ClassDef, defined: dict[str, Definition]) -> bool:
    """Whether a class is one of unittest's cases, itself or by a base, or is named as pytest's."""
    others = {name: one for name, one in defined.items() if one is not node}
    for base in node.bases:
        known = others.get(last_name(base))
        if last_name(base).endswith("TestCase") or (
            isinstance(known, ast.ClassDef) and _is_case(known, others)
        ):
            return True
    return node.name.startswith("Test")


def _is_method(node: ast.stmt) -> bool:
    return (
        isinstance(node, Function)
        and node.name.startswith(_PREFIX)
        and not marks.never_fails(node.decorator_list)
    )


def _reached(roots: Iterable[ast.stmt], defined: dict[str, Definition]) -> Iterator[ast.stmt]:
    """The roots, and the definitions that they use by name, and those that these use."""
    queue, seen = list(roots), set[str]()
    while queue:
        node = queue.pop()
        yield node
        names = {_name(part) for part in ast.walk(node)}
        fresh = (names & defined.keys()) - seen
        seen |= fresh
        queue += [defined[name] for name in fresh]


def _asserts(node: ast.stmt) -> bool:
    return any(map(_is_assertion, ast.walk(node)))


def _is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        always = isinstance(node.test, ast.Tuple) and node.test.elts  # as in assert (a == b, "why")
        return not (always or (isinstance(node.test, ast.Constant) and node.test.value))
    if isinstance(node, ast.Call):
        return last_name(node.func).lower().lstrip("_").startswith(_ASSERTING)
    return isinstance(node, ast.Raise)


def _name(node: ast.AST) -> str:
    """The name that a part of a program uses; a parameter's is that of a fixture."""
    return node.arg if isinstance(node, ast.arg) else last_name(node)
