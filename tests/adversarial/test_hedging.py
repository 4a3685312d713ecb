"""No program has two guesses at a test: one in company of others, and another one alone."""

import pytest

from reward.judge import Judge
from reward.problem import parse_input_output
from reward.verdict import Verdict

PRIMES = (7, 8, 9, 11, 12, 13, 15, 17, 20, 23)
ANSWERS = ["YES", "NO", "NO", "YES", "NO", "YES", "NO", "YES", "NO", "YES"]
STDIN = parse_input_output({"inputs": [f"{n}\n" for n in PRIMES], "outputs": ANSWERS})
CALLS = parse_input_output({"fn_name": "f", "inputs": [[n] for n in PRIMES], "outputs": ANSWERS})

# Each sets `first`: whether this is the first test of its process, or the only one.
TELLS = {
    "builtins": "import builtins\nfirst = not hasattr(builtins, 's')\nbuiltins.s = 1",
    "a module": "import math\nfirst = not hasattr(math, 's')\nmath.s = 1",
    "a class": "import random\nfirst = not hasattr(random.Random, 's')\nrandom.Random.s = 1",
    "an environment variable": "import os\nfirst = 's' not in os.environ\nos.environ['s'] = '1'",
    "modules": "import sys\nfirst = 'ours' not in sys.modules\nsys.modules['ours'] = sys",
    "a descriptor": (
        "import os\ntry: os.fstat(77); first = False\nexcept OSError: first = True; os.dup2(2, 77)"
    ),
    "open files": (
        "import os\nfirst = True\nfor fd in range(3, 60):\n"
        "    try: os.fstat(fd)\n    except OSError: continue\n    first = False"
    ),
    "a file's size": (
        "import os\nfirst = True\nfor fd in range(3, 60):\n"
        "    try: first = first and os.fstat(fd).st_size == 0\n    except OSError: pass"
    ),
    "CPU time": "import resource\nfirst = resource.getrusage(0).ru_nvcsw % 2 == 0",
    "a signal handler": (
        "import signal\nfirst = signal.getsignal(10) == 0\nsignal.signal(10, signal.SIG_IGN)"
    ),
    "the recursion limit": (
        "import sys\nfirst = sys.getrecursionlimit() == 1000\nsys.setrecursionlimit(1001)"
    ),
}
FORMS = {
    "answers by it": "answer = 'YES' if first else 'NO'",
    "answers in reverse": "answer = 'NO' if first else 'YES'",
    "fails in company": "answer = 'YES' if first else 1 / 0",
    "leaves in company": "import os\nif not first: os._exit(0)\nanswer = 'NO'",
}


@pytest.mark.parametrize("tell", TELLS)
def test_knowing_the_company_earns_nothing(one_worker: Judge, tell: str) -> None:
    forms = list(FORMS.values())
    for form in forms[:1] if one_worker.config.strict else forms:  # alone there is no company
        code = f"{TELLS[tell]}\n{form}\n"
        assert one_worker.judge(STDIN, code + "print(answer)").verdict != Verdict.ACCEPTED
        indented = "".join(f"    {line}\n" for line in code.splitlines())
        function = f"def f(n):\n{indented}    return answer"
        assert one_worker.judge(CALLS, function).verdict != Verdict.ACCEPTED


def test_a_program_that_fails_in_company_alone_is_accepted(one_worker: Judge) -> None:
    prime = "n = int(input())\nprint('YES' if all(n % i for i in range(2, n)) else 'NO')\n"
    for tell in ("builtins", "a module", "an environment variable", "the recursion limit"):
        code = f"{TELLS[tell]}\nassert first\n{prime}"
        assert one_worker.judge(STDIN, code).verdict == Verdict.ACCEPTED
