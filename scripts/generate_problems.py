"""Problems in APPS form with reference solutions, of which some have several right answers.

    python scripts/generate_problems.py OUT.jsonl [--count 20000] [--share 0.146] [--seed 0]

For measuring what data preparation finds: `several` in each record says whether its solutions print
different right answers on some test. Every tenth problem has a solution that crashes on its last
test, which is no disagreement.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

TESTS = 5
SEVERAL = {
    "Print two whole numbers whose sum is n.": ("print(n, 0)", "print(n - 1, 1)"),
    "Print the divisors of n in any order.": (
        "print(*[d for d in range(1, n + 1) if n % d == 0])",
        "print(*[d for d in range(n, 0, -1) if n % d == 0])",
    ),
    "Print any word of n letters a or b.": ("print('a' * n)", "print('b' * n)"),
}
ONE: dict[str, tuple[str, str]] = {
    "Print the sum of 1 to n.": ("print(n * (n + 1) // 2)", "print(sum(range(n + 1)))"),
    "Print the number of divisors of n.": (
        "print(sum(n % d == 0 for d in range(1, n + 1)))",
        "print(len([d for d in range(1, n + 1) if not n % d]))",
    ),
    "Print n in binary.": ("print(bin(n)[2:])", "print(f'{n:b}')"),
    "Print YES if n is even, else NO.": (
        "print('NO' if n % 2 else 'YES')",
        "print(['YES', 'NO'][n & 1])",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--share", type=float, default=0.146, help="of several right answers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with options.out.open("w") as lines:
        for number in range(options.count):
            record = problem(number, chance.random() < options.share, chance)
            lines.write(json.dumps(record) + "\n")


def problem(number: int, several: bool, chance: random.Random) -> dict[str, Any]:
    """One record; expected outputs are the first solution's."""
    question, (first, second) = chance.choice(list((SEVERAL if several else ONE).items()))
    values = chance.sample(range(3, 60), TESTS)
    solutions = [f"n = int(input())\n{body}" for body in (first, second)]
    if number % 10 == 0:
        solutions[1:1] = [f"n = int(input())\nassert n != {values[-1]}\n{first}"]
    return {
        "problem_id": f"{number:06}",
        "question": f"{question} (variant {number})",
        "difficulty": "introductory",
        "input_output": json.dumps(
            {
                "inputs": [f"{value}\n" for value in values],
                "outputs": [_output(first, value) for value in values],
            }
        ),
        "solutions": json.dumps(solutions),
        "several": several,
    }


def _output(body: str, n: int) -> str:
    printed: list[str] = []

    def take(*words: object) -> None:
        printed.append(" ".join(map(str, words)))

    exec(body, {"n": n, "print": take})
    return "".join(f"{line}\n" for line in printed)


if __name__ == "__main__":
    main()
