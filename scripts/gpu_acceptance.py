#!/usr/bin/env python
"""Try a GPU: python scripts/gpu_acceptance.py [--device cpu --small] [--help]."""

import sys

from recipe.acceptance.main import main

if __name__ == "__main__":
    sys.exit(main())
