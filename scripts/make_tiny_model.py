#!/usr/bin/env python
"""Trains the model of recipe/cpu/checkpoint: python scripts/make_tiny_model.py [--help]."""

import sys

from recipe.cpu.make_tiny_model import main

if __name__ == "__main__":
    sys.exit(main())
