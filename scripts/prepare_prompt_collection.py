#!/usr/bin/env python
"""Prompt-Collection to verl's parquet: python scripts/prepare_prompt_collection.py --help."""

import sys

from recipe.data.prepare_prompt_collection import main

if __name__ == "__main__":
    sys.exit(main())
