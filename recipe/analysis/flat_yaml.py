"""A YAML file as dotted keys with their values as text."""

from collections.abc import Iterable
from typing import Any

import yaml

from recipe.analysis.printable import printable

Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


def flat(text: str) -> dict[str, str] | None:
    """The keys of a mapping; None if the text holds another thing.

    Scalars stay text, since YAML 1.1 reads a bare `off` as false.

    Raises:
        yaml.YAMLError, RecursionError, ValueError: it is not readable YAML.
    """
    content = yaml.load(text, Loader)
    return dict(_flatten(content, "")) if isinstance(content, dict) else None


def _flatten(value: object, key: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{key}.{index}")
    else:
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield printable(key), printable(text)
