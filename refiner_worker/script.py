"""Whether a text is written in letters that its sources do not use: the wrong language, seen."""

import unicodedata
from collections import Counter

FOREIGN_SHARE = 0.5
"""Above this share of foreign letters a text counts as in the wrong script (ours)."""
_SCRIPTS = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
"""What is written together counts as one script."""


def is_foreign(text: str, *sources: str) -> bool:
    """Whether most letters of `text` belong to scripts in which no source has a letter.

    A letter's script is the first word of its Unicode name. Languages that share a script are not
    told apart, and a text without letters is never foreign.
    """
    counts = _letters(text)
    if not counts:
        return False
    known = set().union(*(_letters(source) for source in sources))
    foreign = sum(count for script, count in counts.items() if script not in known)
    return foreign > FOREIGN_SHARE * counts.total()


def _letters(text: str) -> Counter[str]:
    """Letters of the text by script."""
    counts: Counter[str] = Counter()
    for letter, count in Counter(filter(str.isalpha, text)).items():
        script = unicodedata.name(letter, "UNNAMED").split(maxsplit=1)[0]
        counts[_SCRIPTS.get(script, script)] += count
    return counts
