"""Which target each rollout gets in the controls of the supervised term."""

from dataclasses import replace

import steps

from recipe.online_refiner.contract.of_constraints import constraint_violations
from recipe.study.placebos import exchanged, own_best


def accepted_of(*lengths: tuple[str, int]) -> list[steps.Any]:
    """Accepted refinements of so many tokens, one a problem; the tokens tell the problem."""
    rollouts = [
        replace(
            steps.rollout(key, [7], steps.refinement([ord(key[0])] * length, [0] * length)),
            problem_id=key[0],
        )
        for key, length in lengths
    ]
    return steps.step_of(rollouts).accepted


def test_refinements_go_to_another_problem_of_like_length_and_each_is_used_once() -> None:
    found = exchanged(accepted_of(("a_0", 5), ("b_0", 2), ("c_0", 3)))
    targets = {one.rollout.problem_id: one.refinement.token_ids for one in found}
    assert targets == {"b": (ord("c"),) * 3, "c": (ord("a"),) * 5, "a": (ord("b"),) * 2}
    assert all(len(one.token_mask) == len(one.refinement.token_ids) for one in found)


def test_two_refinements_of_one_problem_are_not_exchanged_between_each_other() -> None:
    found = exchanged(accepted_of(("a_0", 2), ("a_1", 3), ("b_0", 4), ("b_1", 5)))
    pairs = [(one.rollout.problem_id, chr(one.refinement.token_ids[0])) for one in found]
    assert sorted(pairs) == [("a", "b"), ("a", "b"), ("b", "a"), ("b", "a")]


def test_a_step_of_one_problem_has_nothing_to_exchange() -> None:
    assert exchanged(accepted_of(("a_0", 2), ("a_1", 3))) == []
    assert exchanged([]) == []


def test_the_own_best_is_of_the_same_prompt_and_strictly_better() -> None:
    rollouts = [
        replace(steps.rollout("a_0", [1, 2]), reward=-0.3),
        replace(steps.rollout("a_1", [1, 3]), reward=1.0),
        replace(steps.rollout("a_2", [4]), reward=2.0, judged=False),
        replace(steps.rollout("b_0", [5]), reward=-1.0),
    ]
    (only,) = own_best(rollouts)
    assert only.rollout.key == "a_0"
    assert only.refinement.token_ids == (1, 3)
    assert only.refinement.copied == (1, 0)
    assert only.token_mask.tolist() == [1, 1]


def test_both_keep_the_contract_of_constraints() -> None:
    for name in ("Exchanged", "OwnBest"):
        reference = f"recipe.study.placebos:{name}"
        assert constraint_violations(reference, ["constraint.inject=sft"]) == []
