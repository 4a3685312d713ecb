"""Each way of constraining on the real stack, two steps on the CPU, one key away from another.

A class a training, so that trainings may run beside each other.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from penalised import check_return_to_go
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu.experiments import SMALL
from recipe.cpu.micro_apps import prepare_micro_apps
from recipe.cpu.micro_dialogue import prepare_micro_dialogue
from recipe.cpu.readings import both_readings, episode_ids, messages_by_problem
from recipe.cpu.reward_model import ensure_reward_model, load, score
from recipe.cpu.tiny_model import ensure_checkpoint
from recipe.cpu.tiny_model_evaluate import generate
from recipe.data.apps import PrepareOptions, prepare
from refiner_worker.prompts import load_template, render

pytestmark = pytest.mark.timeout(1200)

Metrics = dict[int, dict[str, Any]]
Make = Callable[..., Any]

DROPPED = ("evicted_samples", "discarded_surplus_samples")
"""Groups that verl's dynamic sampling throws away: without a signal, and beyond the batch."""
TWO_STEPS = ("trainer.save_freq=-1", "trainer.total_training_steps=2")


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train and validation rows of generated problems."""
    return prepare_micro_apps(tmp_path_factory.mktemp("data"), 64, 16)


@pytest.fixture(scope="module")
def dialogues(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Train and validation rows of generated Prompt-Collection records."""
    return prepare_micro_dialogue(tmp_path_factory.mktemp("dialogues"), 64, 16)


def given(train: Path, val: Path) -> tuple[str, ...]:
    """Overrides that train the tiny model on these rows."""
    return (
        f"data.train_files={train}",
        f"data.val_files={val}",
        f"actor_rollout_ref.model.path={ensure_checkpoint()}",
    )


def trained(make: Make, *overrides: str) -> Any:
    """A training of two steps, which has ended well."""
    run = make(*TWO_STEPS, *overrides)
    run.start()
    run.finish()
    assert sorted(run.metrics()) == [1, 2]
    assert json.loads((run.folder / "run.json").read_text())["finished_at"]
    return run


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model folder."""
    files = [load_file(path) for path in folder.glob("*.safetensors")]
    return {name: tensor for file in files for name, tensor in file.items()}


def check_steps(metrics: Metrics, log_prob_tolerance: float = 1e-4) -> None:
    """Every step made a finite update, from rollouts of the weights that it started with."""
    for data in metrics.values():
        assert math.isfinite(data["actor/grad_norm"])
        assert data["monitor/rollout_logprob_diff_max"] < log_prob_tolerance


class TestPpoOnDialogues:
    """With a critic, scored by a served reward model, refined by an average of the policy."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, dialogues: tuple[Path, Path]) -> Any:
        return trained(
            module_training,
            *given(*dialogues),
            *("experiment=ppo_dialogue_dynamic", *SMALL),
            *("constraint.inject=reward", "constraint.lambda=0.5"),
            # With γ = λ = 1 the returns are the sums of the penalised rewards.
            *("algorithm.lam=1.0", "data.train_batch_size=32", "actor_rollout_ref.rollout.n=1"),
            *("actor_rollout_ref.actor.ppo_mini_batch_size=16", "trainer.logger=[console]"),
            f"reward.reward_model.model_path={ensure_reward_model()}",
            *("refiner.source=ema", "refiner.ema.every_steps=1", "refiner.ema.decay=0.5"),
            # Joined late: reference and values are computed first, then labels are waited for.
            "refiner.placement=pool",
            "trainer.save_freq=1",
        )

    def test_the_penalty_is_taken_from_the_rewards_but_they_are_logged_raw(self, run: Any) -> None:
        metrics = run.metrics()
        check_steps(metrics)
        for data in metrics.values():
            assert math.isfinite(data["critic/vf_loss"])
            assert data["constraint/improvement_ratio"] > 0.05
            assert data["constraint/penalty_mean"] > 0
            assert data["critic/returns/max"] <= data["critic/score/max"] + 1e-4
        lowered = [
            data["critic/returns/min"] - data["critic/score/min"] for data in metrics.values()
        ]
        assert max(lowered) <= 1e-4 and min(lowered) < -1e-3, "no return carries a penalty"

    def test_the_pass_for_the_old_log_probs_measures_it_by_the_policys_own_steps(
        self, run: Any
    ) -> None:
        assert all("timing_s/constraint_ce" not in data for data in run.metrics().values())
        check_self_fed(run, lambda answer, refined: range(min(answer, refined)))

    def test_the_served_reward_model_scores_answers_as_transformers_does(
        self, run: Any, dialogues: tuple[Path, Path]
    ) -> None:
        """From verl's reward loop through its router to vLLM's classify route and back."""
        assert all(data["judge/failed_total"] == 0 for data in run.metrics().values())
        infos = pq.read_table(dialogues[0])["extra_info"].to_pylist()
        asked = {info["problem_id"]: json.loads(info["conversation"]) for info in infos}
        episodes = [one for one in run.records("episodes.jsonl") if one["step"] == 1]
        assert len(episodes) > 16
        told, rewards = [], []
        for one in episodes:
            for text, reward in (("answer", "reward"), ("refined", "refined_reward")):
                if one[reward] is not None:
                    reply = {"role": "assistant", "content": one[text]}
                    told.append([*asked[one["problem_id"]], reply])
                    rewards.append(one[reward])
        model, tokenizer = load(ensure_reward_model())
        expected = score(model, tokenizer, told)
        torch.testing.assert_close(torch.tensor(rewards), expected, atol=1e-3, rtol=0)
        assert expected.std() > 0.1, "the reward tells nothing apart"

    def test_the_refiner_is_half_what_it_was_a_step_ago_and_half_the_policy(self, run: Any) -> None:
        first, second = (run.folder / "checkpoints" / f"global_step_{step}" for step in (1, 2))
        before, average = (weights_of(at / "refiner_average") for at in (first, second))
        policy = torch.load(second / "actor" / "model_world_size_1_rank_0.pt", weights_only=False)
        assert average.keys() <= policy.keys()
        for name, tensor in average.items():
            expected = (before[name] + policy[name].full_tensor()) / 2
            torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)


def check_self_fed(run: Any, asked: Callable[[int, int], Sequence[int]]) -> None:
    """Accepted episodes have a cross entropy on these tokens of a' alone, finite and not all 0."""
    accepted = [one for one in run.records("episodes.jsonl") if one["accepted"]]
    assert accepted
    for one in accepted:
        assert one["ce_reading"] == "self_feeding"
        given = asked(len(one["answer_tokens"]), len(one["refined_tokens"]))
        assert [index for index, flag in enumerate(one["ce_asked"]) if flag] == list(given)
    values = [value for one in accepted for value in one["ce"]]
    assert all(math.isfinite(value) and value > -1e-4 for value in values)
    assert sum(values) > 1


PLAIN_REWARD = """from reward.apps import compute_score as judged

async def compute_score(**given):
    return (await judged(**given))["score"]
"""


class TestDapoWithDynamicSampling:
    """The paper's penalty for DAPO, self-fed and cumulated, on groups that its sampling keeps.

    The reward function returns a plain number, and every token of a response costs of the reward.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, problems: tuple[Path, Path], tmp_path_factory: Any) -> Any:
        function = tmp_path_factory.mktemp("reward") / "plain.py"
        function.write_text(PLAIN_REWARD)
        return trained(
            module_training,
            *given(*problems),
            f"reward.custom_reward_function.path={function}",
            "reward.reward_kwargs.overlong_buffer_cfg.len=${data.max_response_length}",
            *("algorithm=dapo", "constraint.inject=advantage", "constraint.lambda=0.01"),
            # Of two rollouts every second pair has equal rewards.
            *("constraint.keep_refined_groups=false", "actor_rollout_ref.rollout.n=2"),
            *("actor_rollout_ref.actor.optim.lr=1e-6", "trainer.logger=[console]"),
        )

    def test_groups_without_a_signal_are_sampled_again(self, run: Any) -> None:
        metrics = run.metrics()
        check_steps(metrics)
        # verl has no such count in a step without one.
        evicted = [data.get("constraint/evicted_total", 0) for data in metrics.values()]
        assert sum(evicted) > 0
        for data in metrics.values():
            assert data["monitor/group_reward_std"] > 0
            assert data["constraint/kept_by_refinement_total"] == 0
            assert data["judge/failed_total"] == data["judge/failed_dropped_total"] == 0

    def test_scores_are_compared_before_the_length_penalty(self, run: Any) -> None:
        """Each is one of the judge's tiers, and none of the rewards that are trained on is."""
        shares = [-0.3 + 1.3 * passed / total for total in range(1, 13) for passed in range(total)]
        tiers = [-1.0, -0.6, *shares, 1.0]
        episodes = run.records("episodes.jsonl")
        told = {one[name] for one in episodes for name in ("reward", "refined_reward")} - {None}
        assert len(told) > 1
        assert all(any(score == pytest.approx(tier) for tier in tiers) for score in told)
        assert max(told) == 1.0
        assert all(data["critic/score/max"] < 0.99 for data in run.metrics().values())

    def test_what_was_refined_is_counted_whether_its_group_is_trained_on_or_not(
        self, run: Any
    ) -> None:
        trained_on = Counter(one["step"] for one in run.records("episodes.jsonl"))
        beyond = 0.0
        for step, data in run.metrics().items():
            groups = sum(data.get(f"training/filter_groups/{name}", 0) for name in DROPPED)
            config = OmegaConf.load(run.folder / "config.yaml")
            groups += config.data.train_batch_size
            # All groups have two rollouts; verl counts those that it dropped.
            assert data["refiner/rollouts_total"] == 2 * groups
            outcomes = ("skipped_perfect", "verbatim", "refined", "failed")
            assert data["refiner/rollouts_total"] == sum(
                data[f"refiner/{name}_total"] for name in outcomes
            )
            # Whatever asked the refiner and is trained on leaves an episode.
            asked = data["refiner/rollouts_total"] - data["refiner/skipped_perfect_total"]
            assert asked >= trained_on[step]
            beyond += asked - trained_on[step]
            assert data["refiner/engine_calls_total"] >= asked - data["refiner/failed_total"]
            improved = data["constraint/improvement_ratio"] * data["refiner/rollouts_total"]
            assert improved == pytest.approx(round(improved), abs=1e-6)
            assert improved >= data["constraint/kept_total"] > 0
        assert beyond > 0, "no dropped group was refined"

    def test_the_advantages_lose_what_is_still_to_come_of_the_penalty(self, run: Any) -> None:
        records = [*run.records("episodes.jsonl"), *run.records("rollouts.jsonl")]
        check_return_to_go(records, lambda_=0.01)
        for data in run.metrics().values():
            assert data["constraint/penalty_mean"] > 0
            assert data["constraint/nonfinite_total"] == 0
            # verl logs the estimator's own as returns, and advantages over the same tokens.
            assert data["critic/returns/mean"] > data["critic/advantages/mean"]
        assert all("timing_s/constraint_ce" not in data for data in run.metrics().values())
        check_self_fed(run, lambda answer, refined: range(min(answer, refined)))

    def test_it_is_the_cross_entropy_that_transformers_gives_in_the_rollouts_own_states(
        self, run: Any, problems: tuple[Path, Path]
    ) -> None:
        """Of the first step, whose policy is the model that the training starts from."""
        folder = ensure_checkpoint()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer, asked = AutoTokenizer.from_pretrained(folder), messages_by_problem(problems[0])
        episodes = [one for one in run.records("episodes.jsonl") if one["step"] == 1]
        accepted = [one for one in episodes if one["accepted"]]
        assert accepted
        for one in accepted:
            ids = episode_ids(one, asked[one["problem_id"]], tokenizer)
            expected = both_readings(model, ids).self_fed
            assert one["ce"][: len(expected)] == pytest.approx(expected, rel=1e-3, abs=1e-3)


class TestSelfFedSupervision:
    """The supervised term as labels on the policy's own rows."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, problems: tuple[Path, Path]) -> Any:
        return trained(
            module_training,
            *given(*problems),
            *("constraint.inject=sft", "constraint.lambda=1.0", "constraint.reduce=sum"),
            *("constraint.conditioning=self_feeding", "constraint.tokens=aligned"),
        )

    def test_the_term_is_the_penalty_and_makes_no_pass(self, run: Any) -> None:
        metrics = run.metrics()
        check_steps(metrics)
        for data in metrics.values():
            assert data["constraint/kept_total"] > 0
            # One mini-batch a step: the loss sees the weights that it reports the c_t of.
            assert data["actor/sft_loss"] == pytest.approx(
                data["constraint/penalty_mean"], rel=1e-3
            )
            assert "timing_s/constraint_ce" not in data

    def test_every_copied_token_is_asked_for_in_its_state_or_gives_way_to_an_insertion(
        self, run: Any
    ) -> None:
        accepted = [one for one in run.records("episodes.jsonl") if one["accepted"]]
        assert accepted
        for one in accepted:
            assert one["ce_reading"] == "self_feeding"
            flags = enumerate(zip(one["copied"], one["ce_asked"], strict=True))
            silent = [index for index, (copied, asked) in flags if copied and not asked]
            assert all(index and not one["copied"][index - 1] for index in silent)
            assert 0 < sum(one["ce_asked"]) <= len(one["answer_tokens"])


class TestLateJoin:
    """One step with and without it, on greedy rollouts, which are the same in both."""

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, module_training: Make, problems: tuple[Path, Path]) -> tuple[Any, Any]:
        def made(late: bool) -> Any:
            run = module_training(
                *given(*problems),
                *("trainer.save_freq=-1", "trainer.total_training_steps=1"),
                *("refiner.placement=pool", f"refiner.late_join={str(late).lower()}"),
                *("actor_rollout_ref.rollout.top_k=1", "actor_rollout_ref.rollout.n=2"),
                # Greedily almost all are right: they are refined all the same, and equals accepted.
                *("refiner.perfect_reward=null", "constraint.filter=not_worse"),
                "constraint.inject=sft",
            )
            run.start()
            run.finish()
            return run

        return made(late=True), made(late=False)

    def test_both_refine_the_same_rollouts_in_the_same_way(self, runs: tuple[Any, Any]) -> None:
        late, early = (
            sorted(
                (one["problem_id"], one["answer"], one["refined"], one["accepted"])
                for one in run.records("episodes.jsonl")
            )
            for run in runs
        )
        assert late == early
        assert any(accepted for *_, accepted in late)

    def test_both_make_the_same_update(self, runs: tuple[Any, Any]) -> None:
        late, early = (run.metrics()[1] for run in runs)
        for name in ("constraint/kept_total", "constraint/improvement_ratio", "critic/score/mean"):
            assert late[name] == early[name]
        # Rows are in the order in which they were stored, and so are sums over them.
        for name in ("constraint/ce_mean", "actor/sft_loss", "actor/grad_norm", "actor/entropy"):
            assert late[name] == pytest.approx(early[name], rel=1e-4)
        assert late.keys() == early.keys()


def write_unfamiliar_apps(root: Path) -> None:
    """Problems in the layout of APPS of a kind that the tiny model has never seen.

    It solves none of them, and its cross entropy on their solutions is high, whatever it samples.
    """
    for number in range(8):
        folder = root / "train" / f"{number:04d}"
        folder.mkdir(parents=True)
        (folder / "question.txt").write_text(
            f"A frog climbs {number + 2} stairs at a time. Each query has the height of a wall.\n"
            "For each of them, print the number of leaps it needs, or -1 if it would fall.\n"
            "-----Input-----\nq, the number of queries (1 <= q <= 100), then one height a line.\n"
        )
        tests = {
            "inputs": ["2\n5\n12\n"],
            "outputs": [f"{leaps(5, number)}\n{leaps(12, number)}\n"],
        }
        (folder / "input_output.json").write_text(json.dumps(tests))
        (folder / "solutions.json").write_text(json.dumps([FROG.format(number=number)]))
        metadata = {"difficulty": "interview", "url": f"unfamiliar:{number}"}
        (folder / "metadata.json").write_text(json.dumps(metadata))


FROG = """class Frog:
    def leaps(self, wall):
        return -1 if wall % 2 else wall // ({number} + 2)

import sys
for q in sys.stdin.read().split()[1:]:
    sys.stdout.write(str(Frog().leaps(int(q))) + chr(10))
"""


def leaps(wall: int, number: int) -> int:
    """What `FROG` prints."""
    return -1 if wall % 2 else wall // (number + 2)


class TestChordWithAdapters:
    """CHORD-φ on reference solutions, by adapters on a base that refines.

    The refinements are only looked at.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, tmp_path_factory: Any) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("apps")
        write_unfamiliar_apps(folder / "source")
        prepare(str(folder / "source"), folder, options=PrepareOptions())
        return folder / "train.parquet", folder / "train.parquet"

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, files: tuple[Path, Path]) -> Any:
        return trained(
            module_training,
            *given(*files),
            *("data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2"),
            "actor_rollout_ref.rollout.n=2",
            *("data.max_prompt_length=700", "data.max_response_length=192"),
            *("refiner.observe=true", "refiner.max_prompt_length=1200"),
            *("refiner.placement=shared_base", "actor_rollout_ref.model.lora_rank=8"),
            "actor_rollout_ref.model.target_modules=all-linear",
            "actor_rollout_ref.actor.optim.lr=0.05",
            *("constraint.kind=chord", "constraint.chord.peak=0.1", "constraint.chord.valley=0.1"),
            *("constraint.chord.decay_steps=0", "constraint.chord.phi=true"),
        )

    def test_reference_solutions_are_learnt_by_phi(self, run: Any) -> None:
        metrics = run.metrics()
        # float32 sums over hundreds of tokens.
        check_steps(metrics, log_prob_tolerance=1e-3)
        for data in metrics.values():
            assert data["constraint/mu"] == pytest.approx(0.1)
            assert data["constraint/expert_total"] == 2
            assert data["constraint/expert_ce_mean"] > 0
            # φ is at most 1/4, and the term is μ times the mean over tokens of φ·c.
            assert 0 < data["actor/sft_loss"] < 0.1 * 0.25 * 2 * data["constraint/expert_ce_mean"]

    def test_the_base_refines_as_before_where_the_adapters_have_moved_the_policy(
        self, run: Any, files: tuple[Path, Path]
    ) -> None:
        moved = run.metrics()[2]
        assert moved["monitor/kl_to_reference"] > 1
        assert moved["refiner/engine_calls_total"] > 0
        assert moved["refiner/engine_error_total"] == 0
        rows = pq.read_table(files[0], columns=["prompt", "extra_info"]).to_pylist()
        asked = {row["extra_info"]["problem_id"]: row["prompt"] for row in rows}
        episodes = [one for one in run.records("episodes.jsonl") if one["step"] == 2]
        folder, template = ensure_checkpoint(), load_template("micro-v1")
        told = [render(template, asked[one["problem_id"]], one["answer"]) for one in episodes]
        base = AutoModelForCausalLM.from_pretrained(folder)
        written = generate(base, AutoTokenizer.from_pretrained(folder), told, temperature=0.0)
        same = [one["refined"] == text for one, text in zip(episodes, written, strict=True)]
        # Of two tokens that are almost equally likely an engine may take the other one.
        assert sum(same) > len(same) / 2


class TestDistillation:
    """The refiner's distributions, told by servers that speculate, in the actor's loss."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, problems: tuple[Path, Path]) -> Any:
        return trained(
            module_training,
            *given(*problems),
            *("constraint.kind=distill", "constraint.distill.top_k=8", "refiner.decoding=copy"),
            *("actor_rollout_ref.actor.ppo_epochs=2", "monitor.self_fed_ce=true"),
        )

    def test_every_token_of_an_accepted_refinement_is_taught_its_distribution(
        self, run: Any
    ) -> None:
        metrics = run.metrics()
        check_steps(metrics)
        for data in metrics.values():
            assert data["constraint/kept_total"] > 0
            assert data["refiner/engine_error_total"] == 0
            assert data["constraint/distilled_token_ratio"] == 1.0
            assert data["refiner/scored_tokens_total"] > 0
            assert data["actor/sft_loss"] > 0
            assert "timing_s/constraint_ce" not in data

    def test_the_divergence_is_the_cross_entropy_up_to_what_the_refiner_leaves_open(
        self, run: Any
    ) -> None:
        """A greedy a' is the refiner's likeliest, so both fall or rise together."""
        for data in run.metrics().values():
            assert 0 < data["constraint/refiner_kl_mean"] < data["constraint/ce_mean"] + 1.0

    def test_the_self_fed_reading_is_logged_beside_it_and_is_the_same_up_to_the_edit(
        self, run: Any
    ) -> None:
        accepted = [one for one in run.records("episodes.jsonl") if one["accepted"]]
        assert accepted
        for one in accepted:
            assert one["ce_reading"] == "teacher_forcing"
            self_fed = one["cross_entropy_self_fed"]
            states = min(len(one["answer_tokens"]), len(self_fed))
            assert [value is not None for value in self_fed] == [
                index < states for index in range(len(self_fed))
            ]
            pairs = zip(one["answer_tokens"], one["refined_tokens"], strict=False)
            until = next((at for at, (old, new) in enumerate(pairs) if old != new), states - 1)
            # The update of the first epoch sees the weights that the pass has seen.
            assert one["ce"][: until + 1] == pytest.approx(self_fed[: until + 1], abs=2e-3)


class TestRealProblems:
    """APPS with long prompts, calls and starter code: one step, from its layout to the update."""

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, module_training: Make, tmp_path_factory: Any, shared_data: Path) -> Any:
        folder = tmp_path_factory.mktemp("apps")
        prepare(str(shared_data / "apps"), folder, options=PrepareOptions())
        run = module_training(
            *given(folder / "train.parquet", folder / "train.parquet"),
            *("data.train_batch_size=2", "actor_rollout_ref.actor.ppo_mini_batch_size=2"),
            *("actor_rollout_ref.rollout.n=2", "constraint.inject=sft"),
            *("data.max_prompt_length=3500", "data.max_response_length=192"),
            *("refiner.max_prompt_length=4000", "trainer.total_training_steps=1"),
        )
        run.start()
        run.finish()
        return run

    def test_real_problems_are_judged_and_refined(self, run: Any) -> None:
        data = run.metrics()[1]
        assert data["judge/failed_total"] == 0
        assert -1.0 <= data["critic/score/mean"] <= 1.0
        assert data["refiner/engine_calls_total"] > 0
        assert data["refiner/engine_error_total"] == 0
        assert math.isfinite(data["actor/pg_loss"])
