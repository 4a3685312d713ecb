"""The program in a record of a file or a request: the same names everywhere. Pure.

`code` is a program; `response` is a model's response, whose program is extracted. `solution` is an
older name of `response`.
"""

from collections.abc import Mapping
from typing import Any

from reward.extract import Extract, extract

RESPONSE_NAMES = ("response", "solution")


class NoSubmission(ValueError):
    """A record that does not say, or says in two ways, what to judge; the message says which."""


def response_in(record: Mapping[str, Any]) -> str | None:
    """The response that a record holds, or None. Raises NoSubmission if it holds two."""
    found = {name: record[name] for name in RESPONSE_NAMES if isinstance(record.get(name), str)}
    if len(set(found.values())) > 1:
        raise NoSubmission("`response` and `solution` differ: give one of them")
    return next(iter(found.values()), None)


def program_in(record: Mapping[str, Any], how: Extract) -> str | None:
    """The program to judge; None if the record's response shows none.

    Raises:
        NoSubmission: neither `code` nor `response`, or two that differ.
    """
    code, response = record.get("code"), response_in(record)
    if response is None:
        if isinstance(code, str):
            return code
        raise NoSubmission("give the program as `code`, or as `response`")
    program = extract(response, how)
    if isinstance(code, str) and code != program:
        raise NoSubmission("`code` is not the program in `response`: give one of them")
    return program
