"""Names that call-based problems take for granted, as the sites they come from provide them.

Only names that shadow no builtin; stdin/stdout programs get none and must import what they use.
"""

import bisect
import collections
import copy
import datetime
import functools
import heapq
import itertools
import math
import operator
import random
import re
import string
import sys
import time
import typing
from typing import Any

_MODULES = (
    bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re,
    string, sys, time, typing,
)  # fmt: skip
_STARRED = {
    typing: ("List", "Tuple", "Dict", "Set", "FrozenSet", "Optional", "Union", "Any", "Callable",
             "Iterable", "Iterator", "Sequence", "Deque", "DefaultDict", "Generator"),
    collections: ("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple", "ChainMap"),
    functools: ("lru_cache", "cache", "reduce", "cmp_to_key", "partial"),
    itertools: ("accumulate", "chain", "combinations", "combinations_with_replacement", "count",
                "cycle", "groupby", "islice", "permutations", "product", "repeat", "starmap",
                "takewhile", "dropwhile", "zip_longest"),
    heapq: ("heappush", "heappop", "heapify", "heappushpop", "heapreplace", "nlargest",
            "nsmallest"),
    bisect: ("bisect_left", "bisect_right", "insort", "insort_left", "insort_right"),
    math: ("sqrt", "ceil", "floor", "gcd", "log", "log2", "log10", "inf", "factorial", "pi"),
}  # fmt: skip


def call_namespace() -> dict[str, Any]:
    """A fresh namespace with those names."""
    return dict(_NAMES)


_NAMES: dict[str, Any] = {module.__name__: module for module in _MODULES}
for _module, _members in _STARRED.items():
    _NAMES.update({name: getattr(_module, name) for name in _members})
