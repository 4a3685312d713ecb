"""Starting a process again with the CPU environment, which must be set before verl is imported."""

import os
import sys

from recipe.cpu import environment


def restart_with_environment() -> None:
    """Replace this process by itself with the CPU environment; returns where it is set already.

    Variables that the caller has set are the caller's choice and stay as they are.
    """
    missing = {key: value for key, value in environment().items() if key not in os.environ}
    if missing:
        os.environ.update(missing)
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
