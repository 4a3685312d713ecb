"""The contracts that users run on what they wrote: kept by ours, and each violation is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.online_refiner.contract.__main__ import main
from recipe.online_refiner.contract.of_constraints import constraint_violations
from recipe.online_refiner.contract.of_rewards import reward_violations
from recipe.online_refiner.contract.of_templates import template_violations
from recipe.online_refiner.method.registry import CONSTRAINTS
from refiner_worker.prompts import builtin_templates

HEAD = """
import torch
from recipe.online_refiner.choices import Place, Stage
from recipe.online_refiner.method.constraint import Additions, Constraint, ExtraRow, Penalty
from recipe.online_refiner.method.labels import RowLabels
from recipe.online_refiner.plan import Needs

class Mine(Constraint):
"""
WRONG_CONSTRAINTS = [
    ('    name = "mine"\n', "`name` and `section` belong together"),
    ("    needs = classmethod(lambda cls, settings: True)\n", "raised before the start"),
    (
        "    @classmethod\n    def faults(cls, plan):\n        yield 'it is wrong'\n",
        "after 'Fix: '",
    ),
    (
        "    def penalty(self, step):\n"
        "        return Penalty(Place.ADVANTAGES, ('x',), torch.zeros(1, 1))\n",
        "rollouts of the step",
    ),
    (
        "    def penalty(self, step):\n"
        "        keys = tuple(r.key for r in step.rollouts)\n"
        "        return Penalty(Place.ADVANTAGES, keys, torch.zeros(len(keys), 1))\n",
        "values is expected, not",
    ),
    (
        "    def penalty(self, step):\n"
        "        longest = max(len(r.response_ids) for r in step.rollouts)\n"
        "        keys = tuple(r.key for r in step.rollouts)\n"
        "        return Penalty(Place.REWARDS, keys, torch.ones(len(keys), longest))\n",
        "beyond the rollout's last token",
    ),
    (
        "    def penalty(self, step):\n"
        "        one = step.rollouts[0]\n"
        "        values = torch.full((1, len(one.response_ids)), float('nan'))\n"
        "        return Penalty(Place.REWARDS, (one.key,), values)\n",
        "must be finite",
    ),
    (
        "    def penalty(self, step):\n"
        "        one = step.rollouts[0]\n"
        "        return Penalty(Place.REWARDS, (one.key,), torch.rand(1, len(one.response_ids)))\n",
        "the same step must give the same penalty",
    ),
    (
        "    def additions(self, step):\n"
        "        return Additions([ExtraRow((1,), (2, 3), torch.ones(2))])\n",
        "own_loss=True",
    ),
    (
        "    needs = classmethod(lambda cls, settings: Needs(own_loss=True))\n"
        "    def additions(self, step):\n"
        "        return Additions([ExtraRow((1,), (2, 3), torch.ones(3))], policy_share=2.0)\n",
        "one weight for each token",
    ),
    (
        "    def labels(self, step):\n"
        "        return [RowLabels('a_0_0', torch.tensor([5, 8, 7, -1]))]\n",
        "labels need `Needs(own_loss=True)`",
    ),
    (
        "    def labels(self, step): return [RowLabels('x', torch.tensor([5]))]\n",
        "labels are on rollouts of the step",
    ),
    (
        "    needs = classmethod(lambda cls, settings: Needs(own_loss=True))\n"
        "    def labels(self, step):\n"
        "        return [RowLabels(step.rollouts[0].key, torch.tensor([5, 8, 7, 7, 7]))]\n",
        "one label for each token of the rollout",
    ),
    (
        "    needs = classmethod(lambda cls, settings: Needs(own_loss=True))\n"
        "    def additions(self, step):\n"
        "        one = step.rollouts[0]\n"
        "        return Additions(labels=[RowLabels(one.key, torch.tensor(one.response_ids))])\n",
        "labels of the update have weights",
    ),
    (
        "    @classmethod\n    def needs(cls, settings):\n"
        "        return Needs(refinements=True, own_loss=True)\n"
        "    def reads_at(self, step): return Stage.ADVANTAGES\n"
        "    def labels(self, step):\n"
        "        return [RowLabels(one.key, torch.tensor(one.rollout.response_ids))\n"
        "                for one in step.accepted]\n",
        "`labels` gives something else if refinements come as late",
    ),
    ("    def metrics(self, step): return {'share': 1.0}\n", "constraint/share"),
    ("    def metrics(self, step): return {'a/b': float('nan')}\n", "finite number"),
    ("    def measures_in_update(self, step): return True\n", "promises c_t"),
    ("    def state(self, step, total): return {'a': torch.ones(1)}\n", "must be JSON"),
    ("    def state(self, step, total): return {'a': id(self)}\n", "must have that state"),
]


@pytest.mark.parametrize("kind", [name.replace(".", " constraint.inject=") for name in CONSTRAINTS])
def test_our_constraints_keep_the_contract(kind: str) -> None:
    kind, *overrides = kind.split()
    assert constraint_violations(kind, overrides) == []


@pytest.mark.parametrize("tokens", ["aligned", "first_edit"])
def test_the_supervised_term_keeps_it_by_labels_too(tokens: str) -> None:
    overrides = ("constraint.conditioning=self_feeding", f"constraint.tokens={tokens}")
    assert constraint_violations("dynamic", overrides) == []


@pytest.mark.parametrize("inject", ["sft", "advantage", "reward"])
@pytest.mark.parametrize("schedule", ["adaptive", "constant"])
def test_our_constraints_keep_it_teacher_forced(inject: str, schedule: str) -> None:
    overrides = ("constraint.conditioning=teacher_forcing", f"constraint.schedule={schedule}")
    assert constraint_violations("dynamic", (*overrides, f"constraint.inject={inject}")) == []


@pytest.mark.parametrize(("body", "violation"), WRONG_CONSTRAINTS)
def test_what_breaks_a_constraints_contract_is_named(
    tmp_path: Path, body: str, violation: str
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + body)
    found = constraint_violations(f"{file}:Mine")
    assert any(violation in one for one in found), found


def test_what_a_constraint_raises_is_named_with_the_step_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    masks = "torch.cat([one.token_mask for one in step.accepted])"
    file.write_text(f"{HEAD}    def penalty(self, step):\n        {masks}\n")
    (violation,) = constraint_violations(f"{file}:Mine")
    assert violation.startswith("it raised in a step without refinements: ")
    line = HEAD.count("\n") + 2
    assert violation.endswith(f" (mine.py:{line}, penalty)")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("constraint.lamda=1", "did you mean constraint.lambda? If not, remove it"),
        ("constraint.lambda=[", "Fix: KEY=VALUE"),
        ("constraint.tokens=some", "constraint.tokens='some' is refused. Fix: "),
    ],
)
def test_an_override_that_cannot_be_is_named_with_the_fix(override: str, words: str) -> None:
    (violation,) = constraint_violations("none", [override])
    assert words in violation


def test_a_constraint_that_cannot_be_loaded_is_named_with_the_fix(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine: ...\n")
    for reference, words in (
        (f"{file}:Mine", "no subclass"),
        (f"{file}:Yours", "could not be loaded"),
        (f"{tmp_path}/nowhere.py:Mine", "could not be loaded"),
        ("no.such.module:Mine", "could not be loaded"),
    ):
        (violation,) = constraint_violations(reference)
        assert words in violation and "Fix: " in violation


@pytest.mark.parametrize("name", builtin_templates())
def test_our_templates_keep_the_contract(name: str) -> None:
    assert template_violations(name) == []


def test_what_breaks_a_templates_contract_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: m\nversion: 0\nsystem: null\nuser: '{problem} {answer} {answer}'\n")
    found = template_violations(str(file))
    assert any("shown the response once" in one for one in found)
    assert any("versions count from 1" in one for one in found)
    file.write_text("name: m\nversion: 1\nuser: '{problem}'\n")
    assert "lacks {answer}" in template_violations(str(file))[0]


ROW = {
    "data_source": "sum",
    "prompt": [{"role": "user", "content": "Print the sum."}],
    "reward_model": {"style": "rule", "ground_truth": '{"inputs": ["1 2"], "outputs": ["3"]}'},
    "extra_info": {"index": 0, "reference_solution": "print(sum(map(int, input().split())))"},
}


def test_our_judge_keeps_the_contract_on_prepared_rows(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([ROW]), tmp_path / "rows.parquet")
    settings = [f"rows={tmp_path}/rows.parquet", "max_level=1", "min_level=0", "pool=process"]
    assert reward_violations("pkg://reward.apps", settings) == []


def test_a_reward_function_may_return_a_plain_number(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SIGNATURE + "    return len(solution_str) / 9\n")
    assert reward_violations(str(tmp_path / "mine.py")) == []


SIGNATURE = "def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kw):\n"
DECLARED = "from reward.traits import RewardTraits\nTRAITS = RewardTraits({})\n"


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        (SIGNATURE + "    return 'right'\n", "or a dict"),
        (SIGNATURE + "    return float('inf')\n", "a finite number"),
        (SIGNATURE + "    return {'score': float('nan')}\n", "a finite number"),
        (SIGNATURE + "    return {'score': 1.0, 'judge_failed': 3}\n", "must be 0 or 1"),
        (SIGNATURE + "    return {'score': 1.0, 'parts': [1]}\n", "plain numbers and texts"),
        (SIGNATURE + "    return {'score': 1.0 / len(solution_str)}\n", "ZeroDivisionError"),
        (
            SIGNATURE + "    return {'score': 1.0} | ({'x': 1} if solution_str else {})\n",
            "some lack x",
        ),
        (
            "import random\n" + SIGNATURE + "    return {'score': random.random()}\n",
            "got two scores",
        ),
        (
            DECLARED.format("tells_verdict=True") + SIGNATURE + "    return {'score': 1.0}\n",
            "no text `verdict`",
        ),
        (
            DECLARED.format("failing_test_setting='show'")
            + SIGNATURE
            + "    return {'score': 1.0}\n",
            "with show=True",
        ),
        (
            DECLARED.format("numbers=('passed',)") + SIGNATURE + "    return {'score': 1.0}\n",
            "results have the number passed, and one has None",
        ),
        ("TRAITS = 1\n" + SIGNATURE + "    return {'score': 1.0}\n", "TRAITS must be"),
        ("x = 1\n", "no function compute_score"),
    ],
)
def test_what_breaks_a_rewards_contract_is_named(tmp_path: Path, text: str, violation: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    found = reward_violations(str(file))
    assert any(violation in one for one in found), found


def test_the_command_says_what_it_found_and_ends_accordingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["template", "code-v1"]) == 0
    assert main(["template", f"{tmp_path}/none.yaml"]) == 1
    out, err = capsys.readouterr()
    assert "code-v1: keeps it" in out and "none.yaml: 1 violation\n" in out
    assert "does not exist" in err


def test_rows_that_cannot_be_read_are_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no parquet")
    for name in ("none.parquet", "text.parquet"):
        (violation,) = reward_violations("pkg://reward.math_dapo", [f"rows={tmp_path}/{name}"])
        assert name in violation and "Fix: name a parquet file" in violation
