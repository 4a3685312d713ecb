#!/usr/bin/env python
"""Benchmarks of code: python scripts/evaluate.py {evaluate,compare} … [--help]."""

import sys

from recipe.evaluation.main import main

if __name__ == "__main__":
    sys.exit(main())
