"""Our sections of the config: defaults by injection, refusals, and verl's keys set from them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from recipe.online_refiner.choices import Accumulate, Conditioning, Reduce
from recipe.online_refiner.resolve.resolving import resolve
from recipe.online_refiner.settings import ConfigError, ConstraintSettings

ACTOR = "actor_rollout_ref.actor"
Compose = Callable[..., DictConfig]


def section_of(config: DictConfig) -> ConstraintSettings:
    return resolve(config).settings.constraint


def test_sft_and_the_penalty_have_defaults_of_their_own(composed: Compose) -> None:
    sft = section_of(composed("constraint.inject=sft"))
    assert (sft.lambda_, sft.lambda_end, sft.reduce) == (1.0, 1.0, Reduce.MEAN)
    assert sft.conditioning is Conditioning.TEACHER_FORCING
    penalty = section_of(composed("constraint.inject=advantage"))
    assert (penalty.lambda_, penalty.lambda_end, penalty.reduce) == (1e-4, 1e-4, Reduce.SUM)
    assert penalty.conditioning is Conditioning.SELF_FEEDING
    assert penalty.accumulate is Accumulate.RETURN_TO_GO


def test_given_values_are_kept(composed: Compose) -> None:
    given = composed("constraint.lambda=0.5", "constraint.lambda_end=0", "constraint.reduce=sum")
    section = section_of(given)
    assert (section.lambda_, section.lambda_end, section.reduce) == (0.5, 0.0, Reduce.SUM)


@pytest.mark.parametrize("inject", ["reward", "advantage"])
def test_only_a_penalty_that_feeds_itself_needs_our_loss(composed: Compose, inject: str) -> None:
    given = [f"constraint.inject={inject}", "algorithm.adv_estimator=grpo"]
    assert resolve(composed(*given)).needs.own_loss
    given.append("constraint.conditioning=teacher_forcing")
    assert not resolve(composed(*given)).needs.own_loss


def test_an_adaptive_lambda_falls_to_nothing_unless_told_otherwise(composed: Compose) -> None:
    adaptive = section_of(composed("constraint.schedule=adaptive"))
    assert (adaptive.lambda_, adaptive.lambda_end) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "observe", "refines", "own_loss", "reference"),
    [
        ("none", "false", False, False, False),
        ("static_kl", "true", True, False, True),
        ("dynamic", "false", True, True, False),
        ("chord", "false", False, True, False),
    ],
)
def test_a_run_makes_what_its_constraint_needs_and_no_more(
    composed: Compose, kind: str, observe: str, refines: bool, own_loss: bool, reference: bool
) -> None:
    plan = resolve(composed(f"constraint.kind={kind}", f"refiner.observe={observe}"))
    got = (plan.refines, plan.needs.own_loss, plan.needs.reference)
    assert got == (refines, own_loss, reference)


@pytest.mark.parametrize(
    ("overrides", "watches"),
    [
        (("constraint.kind=none",), False),
        (("constraint.kind=none", "refiner.observe=true"), True),
        (("constraint.kind=dynamic",), True),
        (("constraint.kind=chord",), True),
    ],
)
def test_dropped_rollouts_are_read_where_they_were_refined_or_have_a_demonstration(
    composed: Compose, overrides: tuple[str, ...], watches: bool
) -> None:
    assert resolve(composed(*overrides)).watches_dropped is watches


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["constraint.kind=chord2"], "constraint.kind='chord2' is refused"),
        (["constraint.inject=foo"], "'reward', 'advantage' or 'sft'"),
        (["constraint.lambda=-1"], "constraint.lambda=-1 is refused"),
        (["constraint.schedule=step"], "'constant', 'linear', 'cosine' or 'adaptive'"),
        (["constraint.filter=best"], "'better', 'not_worse' or 'off'"),
        (
            ["constraint.tokens=some"],
            "'all', 'after_divergence', 'edited', 'first_edit' or 'aligned'",
        ),
        (["constraint.static_kl.coef=-0.1"], "constraint.static_kl.coef=-0.1"),
        (["constraint.static_kl.where=actor"], "'loss' or 'reward'"),
        (["constraint.align=start"], "'position', 'last' or 'edit'"),
        (["constraint.conditioning=both"], "'self_feeding' or 'teacher_forcing'"),
        (["constraint.accumulate=all"], "'return_to_go' or 'none'"),
        (["constraint.adaptive_target=0"], "constraint.adaptive_target=0"),
        (["constraint.chord.peak=1.5"], "constraint.chord.peak=1.5"),
        (["constraint.chord.decay_steps=-1"], "constraint.chord.decay_steps=-1"),
        (["constraint.chord.warmup=3"], "did you mean warmup_steps?"),
        (["monitor.kl_every_steps=0"], "monitor.kl_every_steps=0"),
        (["constraint.lamda=1"], "constraint.lamda: unknown key. Fix: did you mean lambda?"),
        (["refiner.deadline_s=0"], "refiner.deadline_s=0"),
        (["refiner.step_deadline_s=0"], "refiner.step_deadline_s=0"),
        (["refiner.block_tokens=0"], "refiner.block_tokens=0"),
        (["refiner.feedback=tests"], "'none', 'verdict' or 'failing_test'"),
        (["refiner.temperature=-0.1"], "refiner.temperature=-0.1"),
        (["refiner.placement=nowhere"], "'colocated', 'pool' or 'shared_base'"),
        (["refiner.decoding=fast"], "'plain', 'verify', 'ngram' or 'copy'"),
        (["refiner.pool.nnodes=0"], "refiner.pool.nnodes=0"),
        (["refiner.max_concurrency=0"], "refiner.max_concurrency=0"),
        (["run.seed=-1"], "run.seed=-1"),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_fix(
    composed: Compose, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(composed(*overrides))
    assert message in str(refused.value)
    assert "Fix: " in str(refused.value)


def test_a_key_that_was_taken_out_is_missed(composed: Compose) -> None:
    config = composed()
    del config.refiner.deadline_s
    with pytest.raises(ConfigError, match=r"refiner\.deadline_s: missing"):
        resolve(config)


def test_an_own_constraint_is_found_from_any_folder_and_names_its_arm(
    composed: Compose, repo_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(repo_root)
    config = composed("constraint.kind=docs/examples/repetition.py:Repetition")
    resolve(config)
    assert config.constraint.kind == f"{repo_root}/docs/examples/repetition.py:Repetition"
    assert config.run.arm == "Repetition"
    monkeypatch.chdir(tmp_path)
    assert resolve(config).settings.run.arm == "Repetition"


@pytest.mark.parametrize("wrong", ["-1", "much", "20000"])
def test_a_wrong_lambda_is_refused_once_if_its_end_follows_it(
    composed: Compose, wrong: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(composed(f"constraint.lambda={wrong}"))
    (line,) = str(refused.value).splitlines()
    assert line.startswith("constraint.lambda=")
    with pytest.raises(ConfigError, match=r"constraint\.lambda_end=-1 is refused"):
        resolve(composed("constraint.lambda_end=-1"))


def test_all_faults_are_reported_together(composed: Compose) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(composed("constraint.inject=foo", "refiner.deadline_s=0"))
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("overrides", "in_reward", "in_loss", "coefficient"),
    [
        (["constraint.kind=static_kl", "monitor.kl_to_reference=false"], False, True, 0.01),
        (["constraint.kind=static_kl"], False, True, 0.01),
        (["constraint.kind=static_kl", "constraint.static_kl.where=reward"], True, True, 0.0),
        (["constraint.kind=dynamic"], False, True, 0.0),
        (["constraint.kind=none", "monitor.kl_to_reference=false"], False, False, 0.0),
    ],
)
def test_verls_kl_keys_follow_the_kind(
    composed: Compose, overrides: list[str], in_reward: bool, in_loss: bool, coefficient: float
) -> None:
    config = composed(*overrides)
    resolve(config)
    actor = config.actor_rollout_ref.actor
    assert config.algorithm.use_kl_in_reward is in_reward
    assert (actor.use_kl_loss, actor.kl_loss_coef) == (in_loss, coefficient)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (
            (f"{ACTOR}.use_kl_loss=true", f"{ACTOR}.kl_loss_coef=0.2"),
            "actor_rollout_ref.actor.use_kl_loss=False; or constraint.kind=static_kl "
            "constraint.static_kl.coef=0.2 constraint.static_kl.where=loss",
        ),
        (
            ("algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.kl_coef=0.2"),
            "algorithm.use_kl_in_reward=False; or constraint.kind=static_kl "
            "constraint.static_kl.coef=0.2 constraint.static_kl.where=reward",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["dynamic", "none", "static_kl"])
def test_a_kl_by_verls_keys_is_refused_rather_than_overwritten(
    composed: Compose, kind: str, overrides: tuple[str, ...], fix: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(composed(f"constraint.kind={kind}", *overrides))
    assert "=0.2: a KL to the reference is a constraint here" in str(refused.value)
    assert fix in str(refused.value)


@pytest.mark.parametrize("where", ["loss", "reward"])
def test_the_config_of_a_static_kl_is_resolved_again_to_the_same(
    composed: Compose, where: str
) -> None:
    config = composed("constraint.kind=static_kl", f"constraint.static_kl.where={where}")
    resolve(config)
    once = config.copy()
    resolve(config)
    assert config == once


def test_static_kl_in_the_reward_has_a_fixed_coefficient_of_its_own(composed: Compose) -> None:
    config = composed(
        *("constraint.kind=static_kl", "constraint.static_kl.where=reward"),
        *("constraint.static_kl.coef=0.25", "algorithm.kl_ctrl.type=adaptive"),
    )
    resolve(config)
    assert (config.algorithm.kl_ctrl.type, config.algorithm.kl_ctrl.kl_coef) == ("fixed", 0.25)


def test_dynamic_sampling_looks_at_refinements_where_these_keep_a_group(composed: Compose) -> None:
    filtered = ("algorithm.filter_groups.enable=true", "algorithm.filter_groups.metric=score")
    for extra, metric in (
        (("constraint.keep_refined_groups=true",), "refinable_score"),
        (("constraint.keep_refined_groups=false",), "score"),
        (("constraint.kind=none",), "score"),
        # The same groups as in a dynamic arm, if refinements are made to compare by.
        (("constraint.kind=chord",), "score"),
        (("constraint.kind=chord", "refiner.observe=true"), "refinable_score"),
        (("constraint.kind=none", "refiner.observe=true"), "refinable_score"),
        (("constraint.kind=static_kl", "refiner.observe=true"), "refinable_score"),
    ):
        config = composed(*filtered, *extra)
        resolve(config)
        assert config.algorithm.filter_groups.metric == metric
