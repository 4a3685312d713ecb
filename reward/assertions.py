"""Test programs as the judge reads them before it runs them: does this one test anything?

A test program in HumanEval's form defines `check`; others hold assertions at the top, functions of
pytest, or cases of unittest (BigCodeBench). What none of these would run tests nothing, and accepts
every program.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator

from reward.jsontext import any_length

_PREFIX = "test"
_ASSERTING = ("assert", "fail", "raises")
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


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
    defined = {node.name: node for node in tree.body if isinstance(node, _Definition)}
    roots = list(_roots(tree, defined))
    if not any(map(_asserts, _reached(roots, defined))):
        return "the test asserts nothing that would be run"
    for root in roots:
        if isinstance(root, _Function) and root.name != "check" and (names := _fixtures(root)):
            return f"{root.name} wants the fixtures {', '.join(names)}, which only pytest has"
    return ""


def _roots(tree: ast.Module, defined: dict[str, _Definition]) -> Iterator[ast.stmt]:
    """What is run: statements at the top, and `check`, or else test functions and test classes."""
    yield from (node for node in tree.body if not isinstance(node, _Definition))
    if isinstance(defined.get("check"), _Function):
        yield defined["check"]
        return
    for name, node in defined.items():
        if isinstance(node, ast.ClassDef):
            if _is_case(node, defined):
                yield from (n for n in node.body if _is_method(n))
        elif name.startswith(_PREFIX):
            yield node


def _is_case(node: ast.ClassDef, defined: dict[str, _Definition]) -> bool:
    """Whether a class is one of unittest's cases, itself or by a base, or is named as pytest's."""
    for base in node.bases:
        name = _last_name(base)
        known = defined.get(name)
        if name.endswith("TestCase") or (
            isinstance(known, ast.ClassDef) and known is not node and _is_case(known, defined)
        ):
            return True
    return node.name.startswith("Test")


def _is_method(node: ast.stmt) -> bool:
    return isinstance(node, _Function) and node.name.startswith(_PREFIX)


def _reached(roots: Iterable[ast.stmt], defined: dict[str, _Definition]) -> Iterator[ast.stmt]:
    """The roots, and the definitions that they use by name, and those that these use."""
    queue, seen = list(roots), set[str]()
    while queue:
        node = queue.pop()
        yield node
        names = {_last_name(part) for part in ast.walk(node)}
        fresh = (names & defined.keys()) - seen
        seen |= fresh
        queue += [defined[name] for name in fresh]


def _asserts(node: ast.stmt) -> bool:
    return any(map(_is_assertion, ast.walk(node)))


def _is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not (isinstance(node.test, ast.Constant) and node.test.value)
    if isinstance(node, ast.Call):
        return _last_name(node.func).lower().lstrip("_").startswith(_ASSERTING)
    return isinstance(node, ast.Raise)


def _fixtures(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Parameters that nothing gives a value: no default, and no mark that might."""
    given = len(node.args.defaults)
    required = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
    required = required[: len(required) - given] if given else required
    marked = any("parametrize" in ast.dump(one) for one in node.decorator_list)
    patched = any("patch" in ast.dump(one) for one in node.decorator_list)
    return [] if marked or patched else [name for name in required if name != "self"]


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
