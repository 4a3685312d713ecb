"""`python -m recipe.online_refiner.contract {constraint,reward,template} WHAT [KEY=VALUE …]`

Runs the contract of what you wrote yourself. Exit status 0 if it keeps it, else 1 and a sentence
for each violation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from recipe.online_refiner.contract.of_constraints import constraint_violations
from recipe.online_refiner.contract.of_rewards import reward_violations
from recipe.online_refiner.contract.of_templates import template_violations

CONTRACTS: dict[str, Callable[[str, Sequence[str]], list[str]]] = {
    "constraint": constraint_violations,
    "reward": reward_violations,
    "template": template_violations,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the options name."""
    parser = argparse.ArgumentParser(prog="python -m recipe.online_refiner.contract")
    parser.add_argument("what", choices=CONTRACTS)
    parser.add_argument(
        "reference",
        help="constraint: package.module:Class, path/to/file.py:Class or a kind; reward: "
        "pkg://module or path/to/file.py; template: a name or path/to/file.yaml",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="constraint: overrides of the configuration; reward: reward_kwargs",
    )
    options = parser.parse_args(arguments)
    violations = CONTRACTS[options.what](options.reference, options.settings)
    for violation in violations:
        print(f"- {violation}", file=sys.stderr)
    count = f"{len(violations)} violation{'s' if len(violations) > 1 else ''}"
    print(f"{options.reference}: {count if violations else 'keeps it'}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
