#!/usr/bin/env python
"""Experiments for a step on the CPU: python scripts/run_experiments_cpu.py [NAME …] [--help]."""

import sys

from recipe.cpu.experiments import main

if __name__ == "__main__":
    sys.exit(main())
