"""Text from a run made safe to show: in a page, a picture or a terminal."""

import unicodedata

REPLACEMENT = "\ufffd"
SHOWN = frozenset("\n\t\u200c\u200d")
"""Line feed, tab, and the two joiners: scripts and emoji are spelt with them, and they steer
nothing beyond the signs beside them."""
OBEYED = {"Cc", "Cf", "Cs", "Co", "Cn"}
"""Unicode categories that steer rather than show: controls, bidirectional marks, surrogates."""


def printable(text: str) -> str:
    """The text with every sign replaced that a reader's program would obey instead of showing it;
    line feeds, tabs and joiners stay, carriage returns go.
    """
    if text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(sign: str) -> str:
    if sign in SHOWN or unicodedata.category(sign) not in OBEYED:
        return sign
    return "" if sign == "\r" else REPLACEMENT
