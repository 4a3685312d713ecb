#!/usr/bin/env python3
"""Draw figures and a table from run folders: `python scripts/plot.py RUN [RUN ...] --out DIR`."""

from recipe.analysis.plot import main

if __name__ == "__main__":
    raise SystemExit(main())
