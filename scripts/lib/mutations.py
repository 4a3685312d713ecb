"""The mutations of a Python file: one operator, constant, condition or statement changed in each.

Not changed: strings, annotations, decorators, asserts and the `strict` of a `zip` (both state what
holds anyway), and calls in class bodies (the bounds of pydantic's fields).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq},
    **{ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn},
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult},
    **{ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult},
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd},
}
Function = ast.FunctionDef | ast.AsyncFunctionDef
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "bases"}
SKIPPED_NODES = (ast.Assert, ast.JoinedStr)


@dataclass(frozen=True)
class Mutation:
    """One change to one file.

    Attributes:
        function: qualified name of the outermost function around it, "" outside of any.
        what: the code before and after. tree: the file as changed.
    """

    path: Path
    line: int
    function: str
    what: str
    tree: ast.Module = field(repr=False)


@dataclass(frozen=True)
class Place:
    """Where a node hangs in a tree, and the function around it."""

    parent: ast.AST
    name: str
    index: int | None
    function: str

    @property
    def node(self) -> ast.AST:
        value = getattr(self.parent, self.name)
        node: ast.AST = value if self.index is None else value[self.index]
        return node

    def put(self, node: ast.AST) -> None:
        """Replace the node."""
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node


def mutations_of(path: Path) -> Iterator[Mutation]:
    """All mutations of a file, in the order of its syntax tree."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for number, place in enumerate(places(tree)):
        for which, after in enumerate(variants(place.node)):
            changed = copy.deepcopy(tree)
            twin = list(places(changed))[number]
            twin.put(list(variants(twin.node))[which])
            what = f"`{_brief(place.node)}` → `{_brief(after)}`"
            line = getattr(place.node, "lineno", getattr(place.parent, "lineno", 0))
            ast.fix_missing_locations(changed)
            yield Mutation(path, line, place.function, what, changed)


def functions(tree: ast.AST, scope: str = "") -> Iterator[tuple[str, Function]]:
    """The functions of a module and of its classes, by qualified name; none within a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{scope}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{scope}{node.name}.")


def places(tree: ast.AST, function: str = "", scope: str = "") -> Iterator[Place]:
    """Where something may be changed.

    Args:
        scope: names of the classes around the tree, each followed by a dot.
    """
    for name, value in ast.iter_fields(tree):
        if name in SKIPPED_FIELDS or (name == "keywords" and isinstance(tree, ast.ClassDef)):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or _is_skipped(node, tree, function):
                continue
            yield Place(tree, name, index, function)
            if isinstance(node, ast.ClassDef) and not function:
                yield from places(node, "", f"{scope}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not function:
                yield from places(node, f"{scope}{node.name}", scope)
            else:
                yield from places(node, function, scope)


def _is_skipped(node: ast.AST, parent: ast.AST, function: str) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    in_class_body = isinstance(parent, ast.AnnAssign) and not function
    return isinstance(node, SKIPPED_NODES) or (isinstance(node, ast.Call) and in_class_body)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What a node may be changed to."""
    match node:
        case ast.Compare(left, [op, *ops], others) if type(op) in COMPARISONS:
            yield ast.Compare(left, [COMPARISONS[type(op)](), *ops], others)
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in OPERATORS:
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.If(test, body, orelse) if _is_plain(test):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test, body, orelse) if _is_plain(test):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.comprehension(target, iterated, [_, *_], is_async):
            yield ast.comprehension(target, iterated, [], is_async)
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
    if _is_removable(node):
        yield ast.Pass()


def _is_plain(test: ast.expr) -> bool:
    """Whether a condition is changed nowhere else."""
    return isinstance(test, ast.Name | ast.Attribute | ast.Call)


def _is_removable(node: ast.AST) -> bool:
    """Statements without which a function still runs: no docstring, no first binding of a name."""
    match node:
        case ast.Expr(value):
            return not isinstance(value, ast.Constant)
        case ast.Assign([ast.Name(name)], value):
            return any(isinstance(one, ast.Name) and one.id == name for one in ast.walk(value))
        case ast.Assign([ast.Attribute() | ast.Subscript()]):
            return True
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break)


def _brief(node: ast.AST) -> str:
    """A node in at most one short line of code."""
    if isinstance(node, ast.comprehension):
        return " ".join(["for … in …", *(f"if {ast.unparse(test)}" for test in node.ifs)])
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n")[0]
    return text if len(text) <= 60 else f"{text[:57]} …"
