#!/usr/bin/env python
"""APPS to verl's parquet files: python scripts/prepare_apps.py --source DIR --out DIR [--help]."""

import sys

from recipe.data.prepare_apps import main

if __name__ == "__main__":
    sys.exit(main())
