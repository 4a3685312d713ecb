"""Policy, refiner and evaluation take the same program from the same response."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from recipe.evaluation.kinds import EvalProblem, Family
from recipe.evaluation.protocols import PROTOCOLS, program_in
from refiner_worker.prompts import load_template, parse_refinement
from reward.apps import compute_score
from reward.config import JudgeConfig
from reward.extract import Extract, extract
from reward.problem import parse_input_output

BLOCKS = ("print('first')", "def f():\n    return 'a definition'\nprint(f())", "print('last')")
LONGEST = "# what is the longest of all blocks in this response\nprint('longest')"
RESPONSE = "Some:\n" + "\n".join(
    f"```python\n{block}\n```" for block in (BLOCKS[0], BLOCKS[1], LONGEST, BLOCKS[2])
)
PRINTED = {
    Extract.FIRST: "first",
    Extract.LAST: "last",
    Extract.LONGEST: "longest",
    Extract.CLASS_OR_DEF: "a definition",
}


@pytest.mark.parametrize("how", PRINTED)
def test_every_reader_of_a_response_takes_the_same_block(how: Extract) -> None:
    cases = {"inputs": [""], "outputs": [PRINTED[how]]}
    problem = EvalProblem("1", Family.APPS, parse_input_output(cases), "")
    evaluated = program_in(PROTOCOLS["apps"], problem, RESPONSE, how)
    template = load_template("code-v1")
    echoed = f"{template.answer_open}{RESPONSE}{template.answer_close}"
    assert evaluated == extract(RESPONSE, how) == extract(parse_refinement(template, echoed), how)
    settings: dict[str, Any] = {"pool": "process", "workers": 1, "extract": str(how)}
    scored = asyncio.run(compute_score("apps", RESPONSE, json.dumps(cases), **settings))
    assert scored["verdict"] == "accepted"


def test_the_default_is_the_same_for_training_and_evaluation() -> None:
    config = JudgeConfig()
    assert extract(RESPONSE) == extract(RESPONSE, Extract(config.extract))
    assert Extract(replace(config, extract="only").extract) == Extract.ONLY
