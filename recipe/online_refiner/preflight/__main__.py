"""`python -m recipe.online_refiner.preflight experiment=… hardware=… KEY=VALUE …`

Says in seconds, without a GPU and without model weights, whether a run can start on this node, and
what will run. Exit status 0, or 2 with a sentence per fault: key, value and fix.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from recipe.online_refiner.preflight.report import preflight
from recipe.online_refiner.resolve.composing import EXIT_BAD_CONFIG, composed, refusal
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError


@composed
def main(config: DictConfig) -> None:
    """Print what will run; exit with 2 and the faults if it cannot."""
    try:
        plan = resolve(config)
    except ConfigError as error:
        print(refusal(str(error).splitlines()), file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)
    report = preflight(plan)
    print(report.text())
    if not report.passes:
        print(f"\n{refusal(report.faults)}", file=sys.stderr)
        sys.exit(EXIT_BAD_CONFIG)


if __name__ == "__main__":
    main()
