"""`eval "$(python -m recipe.cpu)"` sets the environment of a CPU run in the calling shell."""

from __future__ import annotations

import shlex

from recipe.cpu import environment

if __name__ == "__main__":
    for name, value in environment().items():
        print(f"export {name}={shlex.quote(value)}")
