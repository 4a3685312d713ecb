"""Text from a run made safe to show: in a page, a picture or a terminal."""

import unicodedata

REPLACEMENT = "\ufffd"
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn"}
"""Unicode categories that steer rather than show: controls, bidirectional marks, surrogates."""
JOINERS = "\u200c\u200d"
"""Of these categories, yet part of how Persian and Indic words and composed emoji are written."""


def printable(text: str) -> str:
    """The text with every sign replaced that a reader's program would obey instead of showing it;
    line feeds and tabs stay, carriage returns go.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign in "\n\t" + JOINERS or unicodedata.category(sign) not in OBEYED:
        return sign
    return "" if sign == "\r" else REPLACEMENT
