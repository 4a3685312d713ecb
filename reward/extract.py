"""From a model's answer to the one program it declares."""

import re
from enum import StrEnum

_FENCE = re.compile(r"^ {0,3}(`{3,})[ \t]*([^`\n]*)$")
_LANGUAGES = frozenset({"python", "python3", "py"})


class Extraction(StrEnum):
    """Where in the answer the program is."""

    FENCED = "fenced"  # exactly one block fenced as Python
    LAST = "last"  # the last block fenced as Python
    BARE = "bare"  # the whole answer


def extract(answer: str, how: Extraction = Extraction.FENCED) -> str | None:
    """The program in `answer`, or None where there is none, or, for `FENCED`, more than one.

    A block opens with a line of three or more backticks followed by python, python3 or py (any
    case) and closes with a line of at least as many backticks and nothing else. A block that never
    closes is no block: the answer was cut off.
    """
    if how == Extraction.BARE:
        return answer
    blocks = python_blocks(answer)
    if how == Extraction.LAST:
        return blocks[-1] if blocks else None
    return blocks[0] if len(blocks) == 1 else None


def python_blocks(answer: str) -> list[str]:
    """The contents of all closed blocks declared as Python, in order."""
    blocks: list[str] = []
    fence, declared, lines = "", False, list[str]()
    for line in answer.split("\n"):
        match = _FENCE.match(line.rstrip("\r \t"))
        if not fence:
            if match:
                words = match[2].split()
                fence, lines = match[1], []
                declared = bool(words) and words[0].lower() in _LANGUAGES
        elif match and not match[2].strip() and len(match[1]) >= len(fence):
            if declared:
                blocks.append("\n".join(lines) + "\n")
            fence = ""
        else:
            lines.append(line)
    return blocks
