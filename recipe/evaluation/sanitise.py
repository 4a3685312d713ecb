"""From text to the program in it that defines one function. Standard library only; nothing is run.

The rule is evalplus's (its documented sanitiser), written anew on `ast`: the longest run of lines
that parses; of it the imports, and the definitions that the entry point needs. Differences, each
towards keeping more: decorated definitions are kept, and generators count as functions.
"""

import ast
import warnings
from collections.abc import Iterator

MAX_CHARS = 100_000  # beyond it nothing is parsed: no response of a few thousand tokens is so long

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def sanitise(text: str, entry_point: str) -> str | None:
    """The program for `entry_point` in `text`; None if no line of it parses.

    Where the parsable lines hold no definition that `entry_point` needs and no import, they are
    returned as they are.
    """
    region = longest_program(text)
    if not region:
        return None
    kept = _kept(region, entry_point)
    lines = region.split("\n")
    parts = ["\n".join(lines[first - 1 : last]) for first, last in kept]
    return "\n".join(parts) + "\n" if parts else region + "\n"


def longest_program(text: str) -> str:
    """The run of whole lines that parses and has the most lines that are not blank; the first of
    several. Empty if no line parses.
    """
    lines = text.split("\n") if len(text) <= MAX_CHARS else []
    best, best_size = "", 0
    for start in range(len(lines)):
        if not lines[start].strip():
            continue
        if _size(lines[start:]) <= best_size:
            break
        end = _longest_from(lines, start, best_size)
        if end > start:
            best, best_size = "\n".join(lines[start:end]), _size(lines[start:end])
    return best


def well_formed(program: str | None, entry_point: str) -> bool:
    """Whether `program` parses and, if there is an entry point, defines it with a body.

    A docstring alone is no body: it is what a prompt looks like before anything was added.
    """
    tree = parse(program) if program else None
    if tree is None or not tree.body:
        return False
    return not entry_point or any(_defines(node, entry_point) for node in tree.body)


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None if there is none to be had."""
    if len(source) > MAX_CHARS:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _longest_from(lines: list[str], start: int, beaten: int) -> int:
    """The end of the longest parsable run from `start`, or `start` where none beats `beaten`.

    Where parsing stops at a line, no longer run can get past that line.
    """
    end = len(lines)
    while _size(lines[start:end]) > beaten:
        stopped = _stops_at("\n".join(lines[start:end]))
        if stopped == 0:
            return end
        end = min(end - 1, start + stopped - 1)
    return start


def _stops_at(source: str) -> int:
    """The line, from 1, at which parsing fails; 0 if it does not."""
    if "\0" in source:  # for which Python names no line
        source, _, _ = source.partition("\0")
        return source.count("\n") + 1
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(source)
    except SyntaxError as error:
        return max(1, error.lineno or 1)
    except (ValueError, RecursionError, MemoryError):
        return 1
    return 0


def _size(lines: list[str]) -> int:
    return sum(bool(line.strip()) for line in lines)


def _kept(region: str, entry_point: str) -> list[tuple[int, int]]:
    """First and last lines, from 1, of the statements to keep, in the order of the source."""
    tree = parse(region)
    body = tree.body if tree else []
    first: dict[str, ast.stmt] = {}
    for node in body:
        for name in _names(node):
            first.setdefault(name, node)
    needed = _reachable(entry_point, first)
    chosen = [
        node
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        or any(name in needed and first[name] is node for name in _names(node))
    ]
    lines = [(_first_line(node), node.end_lineno or node.lineno) for node in chosen]
    return list(dict.fromkeys(lines))  # several statements may share a line


def _names(node: ast.stmt) -> Iterator[str]:
    """The name that a top-level statement defines. A function that returns nothing defines none: it
    is mostly the prompt's own head, repeated. As at evalplus an assignment defines its first target
    (`A` of `A = B = 3`), if that is a name.
    """
    if isinstance(node, ast.ClassDef) or (isinstance(node, _Function) and _returns(node)):
        yield node.name
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id


def _reachable(entry_point: str, first: dict[str, ast.stmt]) -> set[str]:
    seen, queue = {entry_point}, [entry_point]
    while queue:
        node = first.get(queue.pop())
        if node is None:
            continue
        used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        queue += sorted(used - seen)
        seen |= used
    return seen


def _returns(node: _Function) -> bool:
    gives = ast.Return | ast.Yield | ast.YieldFrom
    return any(isinstance(part, gives) for part in ast.walk(node))


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, _Function | ast.ClassDef) and node.name == name:
        return not all(_is_docstring(part) for part in node.body)
    if isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in ast.walk(target)]
        return any(isinstance(part, ast.Name) and part.id == name for part in parts)
    return name in _names(node) or (
        isinstance(node, ast.Import | ast.ImportFrom)
        and any((alias.asname or alias.name) == name for alias in node.names)
    )


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
