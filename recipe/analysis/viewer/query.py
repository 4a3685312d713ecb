"""What a reader asks of the index: filters, search, order and page, all in the address."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

SORTS = {
    "": "as logged",
    "gain": "reward gain",
    "edits": "edit distance",
    "length": "length of a",
    "refined_length": "length of a′",
    "ce": "mean CE of a′",
    "reward": "reward of a",
}
"""Keys of the order and their names; "" groups rollouts by prompt."""
GROUPS_PER_PAGE, ROWS_PER_PAGE = 12, 50
TERM = re.compile(r'"([^"]+)"|(\S+)')
WORD = re.compile(r"\w")
MAX_PAGE = 10**6


@dataclass(frozen=True)
class Question:
    """The state of a list, as its address spells it. Empty strings filter nothing; `step` is -1 for
    all steps; `page` counts from 0.
    """

    run: str = ""
    step: int = -1
    problem: str = ""
    outcome: str = ""
    verdict: str = ""
    refined_verdict: str = ""
    accepted: str = ""
    q: str = ""
    sort: str = ""
    up: bool = False
    page: int = 0

    @classmethod
    def read(cls, values: Mapping[str, str]) -> "Question":
        """The question of an address; values that make no sense are left out."""
        texts = ("run", "problem", "outcome", "verdict", "refined_verdict", "q")
        found: dict[str, Any] = {key: values.get(key, "") for key in texts}
        accepted, sort = values.get("accepted", ""), values.get("sort", "")
        return cls(
            **found,
            step=_integer(values.get("step", ""), -1),
            accepted=accepted if accepted in ("yes", "no") else "",
            sort=sort if sort in SORTS else "",
            up=values.get("up") == "1",
            page=min(max(0, _integer(values.get("page", ""), 0)), MAX_PAGE),
        )

    def parameters(self, **changes: Any) -> str:
        """The question, with changes, as the query of an address; what is at its default is left
        out.
        """
        asked, default = replace(self, **changes), Question()
        pairs = {
            field.name: getattr(asked, field.name)
            for field in fields(asked)
            if getattr(asked, field.name) != getattr(default, field.name)
        }
        return urlencode({key: int(v) if isinstance(v, bool) else v for key, v in pairs.items()})

    @property
    def is_grouped(self) -> bool:
        """Whether the list shows prompts with their rollouts."""
        return not self.sort

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL and its values."""
        conditions, values = ["1"], []
        for key in ("problem", "outcome", "verdict", "refined_verdict"):
            if getattr(self, key):
                conditions.append(f"{key} = ?")
                values.append(getattr(self, key))
        if self.step >= 0:
            conditions.append("step = ?")
            values.append(self.step)
        if self.accepted:
            conditions.append("accepted = ?")
            values.append(int(self.accepted == "yes"))
        match, _ = match_expression(self.q)
        if match:
            conditions.append("id IN (SELECT rowid FROM words WHERE words MATCH ?)")
            values.append(match)
        return " AND ".join(conditions), values

    def order(self) -> str:
        """The order in SQL: rows without the value last, ties as logged."""
        if not self.sort:
            return "step, uid, id"
        direction = "ASC" if self.up else "DESC"
        return f"{self.sort} {direction} NULLS LAST, id"


def match_expression(text: str) -> tuple[str, list[str]]:
    """A search as an expression of FTS5, and the terms of it that hold no word and are left out.

    All terms have to occur; a quoted term, or one with punctuation inside, as words one after the
    other; the last word of an unquoted term may go on.
    """
    found, ignored = [], []
    for match in TERM.finditer(text.replace("\0", " ")):
        quoted, plain = match.groups()
        term = (quoted or plain).replace('"', "")
        if not WORD.search(term):
            ignored.append(term)
            continue
        found.append(f'"{term}"' + ("" if quoted else "*"))
    return " ".join(found), ignored


def _integer(text: str, default: int) -> int:
    try:
        value = int(text)
    except ValueError:
        return default
    return value if abs(value) < 2**62 else default
