"""Runs a problem's own `check(input, output, answer)`, in a process of its own.

The source is the problem's, so it is confined like a program: it reads what a program wrote, which
is hostile. It runs when the program's process is gone.
"""

import json
import math
import os
from collections.abc import Callable
from typing import Any, NoReturn

from reward.sandbox import runner
from reward.sandbox.preamble import call_namespace
from reward.sandbox.process import read_all
from reward.sandbox.wire import Order

_MAX_REASON_CHARS = 200


def score_cases(order: Order, files: list[tuple[int, int]], sink: int) -> NoReturn:
    """Write what the checker says of each case of the only input to the output, as JSON.

    Per case a number of 0 to 1, or text that says why there is none.
    """
    ((given, output),) = files
    cases = json.loads(read_all(given))
    source = os.pread(order.content, order.code_bytes, 0).decode("utf-8", "surrogatepass")
    namespace = runner.fresh_main(call_namespace(), "checker")
    runner.fresh_streams()
    os.dup2(sink, 1)
    exec(compile(source, "<checker>", "exec"), namespace)
    found = [_score(namespace[order.entry], case, sink) for case in cases]
    os.write(output, json.dumps(found).encode())
    os._exit(0)


def _score(check: Callable[..., Any], case: list[Any], sink: int) -> float | str:
    runner.empty(sink)
    try:
        value = check(*case)
    except Exception as error:
        return f"the checker raised {type(error).__name__}: {error}"[:_MAX_REASON_CHARS]
    if type(value).__module__ == "numpy" and hasattr(value, "item"):
        value = value.item()
    if type(value) not in (bool, int, float) or not math.isfinite(value) or not 0 <= value <= 1:
        return f"the checker returned {value!r:.80}, neither a bool nor a number of 0 to 1"
    return float(value)
