"""What pytest's marks and fixtures say of a test program before it is run. Pure."""

import ast
from collections.abc import Iterable

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef

HARMLESS_FIXTURES = frozenset({"request", "subtests", "record_property"})
"""Of pytest's own: those that need neither files nor the program's process."""

_ELSEWHERE = frozenset(
    {"warns", "deprecated_call", "assertWarns", "assertWarnsRegex", "assertLogs", "assertNoLogs"}
)


def imports_pytest(tree: ast.Module) -> bool:
    """Whether a test program asks for pytest, wherever in it."""
    return any(
        (isinstance(node, ast.Import) and any(_top(one.name) == "pytest" for one in node.names))
        or (isinstance(node, ast.ImportFrom) and _top(node.module or "") == "pytest")
        for node in ast.walk(tree)
    )


def of_module(tree: ast.Module) -> list[ast.expr]:
    """The marks that a test program gives to all its tests, as `pytestmark`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(last_name(t) == "pytestmark" for t in node.targets):
            return node.value.elts if isinstance(node.value, ast.List) else [node.value]
    return []


def never_fails(marks: Iterable[ast.expr]) -> bool:
    """Whether a test with these marks passes whatever it tests.

    It is skipped, has no parameters to run with, or is expected to fail and may do otherwise.
    """
    return any(map(_spares, marks))


def _spares(mark: ast.expr) -> bool:
    name, arguments, named = _parts(mark)
    first = arguments[0] if arguments else None
    match name:
        case "skip":
            return True
        case "skipif" | "skipIf":
            return isinstance(first, ast.Constant) and bool(first.value)
        case "skipUnless":
            return isinstance(first, ast.Constant) and not first.value
        case "xfail":
            return not arguments and not {"strict", "condition"} & named.keys()
        case "parametrize":
            rows = arguments[1] if len(arguments) > 1 else named.get("argvalues")
            return isinstance(rows, ast.List | ast.Tuple) and not rows.elts
    return False


def fixtures(tree: ast.Module) -> dict[str, Function]:
    """The fixtures that a test program defines, by the names under which tests ask for them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            for mark in node.decorator_list:
                name, _, named = _parts(mark)
                if name == "fixture":
                    given = named.get("name")
                    found[given.value if isinstance(given, ast.Constant) else node.name] = node
    return {str(name): node for name, node in found.items()}


def wanted(function: Function, marks: Iterable[ast.expr]) -> list[str]:
    """The fixtures that a test function or a fixture asks for, as far as can be told."""
    arguments = function.args
    optional = len(arguments.defaults)
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    names = names[: len(names) - optional] if optional else names
    names += [
        one.arg
        for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    given = {"self", "cls"}
    for mark in [*function.decorator_list, *marks]:
        name, positional, named = _parts(mark)
        if name == "parametrize":
            given |= _parameter_names(positional[0] if positional else named.get("argnames"), names)
        elif name == "usefixtures":
            names += [str(one.value) for one in positional if isinstance(one, ast.Constant)]
        elif "patch" in ast.dump(mark):  # unittest.mock's decorators give arguments too
            return []
    return [name for name in names if name not in given]


def looks_elsewhere(tree: ast.Module) -> str:
    """What a test program asks that only the program's own process knows; empty if nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := last_name(node.func)) in _ELSEWHERE:
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if owner is None or last_name(owner) in ("self", "cls", "pytest"):
                return name
    return ""


def last_name(node: ast.AST) -> str:
    """The name, or the attribute's; empty for what is neither."""
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _parameter_names(names: ast.expr | None, all_names: list[str]) -> set[str]:
    """The parameters that `parametrize` gives; all of them if that cannot be told."""
    try:
        found = ast.literal_eval(names) if names is not None else all_names
    except ValueError:
        return set(all_names)
    return {part.strip() for part in found.split(",")} if isinstance(found, str) else set(found)


def _parts(mark: ast.expr) -> tuple[str, list[ast.expr], dict[str, ast.expr]]:
    """A mark's name, its arguments and its named arguments."""
    if not isinstance(mark, ast.Call):
        return last_name(mark), [], {}
    named = {one.arg: one.value for one in mark.keywords if one.arg}
    return last_name(mark.func), mark.args, named


def _top(module: str) -> str:
    return module.partition(".")[0]
