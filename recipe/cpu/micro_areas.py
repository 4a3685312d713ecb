"""The three areas of micro-APPS by name, and how often each is drawn."""

from __future__ import annotations

from recipe.cpu.micro_lists import LISTS
from recipe.cpu.micro_pairs import PAIRS
from recipe.cpu.micro_strings import STRINGS
from recipe.cpu.micro_tasks import Area

AREAS: dict[str, Area] = {area.name: area for area in (LISTS, STRINGS, PAIRS)}
AREA_WEIGHTS: dict[str, float] = {"list": 0.6, "string": 0.2, "pair": 0.2}
