"""A model card in Markdown from what a run and its evaluations left behind. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from recipe.evaluation.results import Scores
from recipe.evaluation.tables import scores_table, table, tiers_table

PAPER = "https://arxiv.org/abs/2603.18088"
METHODS = {
    "none": "no constraint",
    "static_kl": "a static KL constraint to the reference model",
    "dynamic": "the dynamic constraint of an online refiner",
    "chord": "CHORD (arXiv 2508.11408)",
}
# The config's keys that a reader asks for, in the order of the card: first those that the kind of
# constraint reads, then the algorithm's.
CONSTRAINT_SETTINGS = {
    "static_kl": ("static_kl.coef", "static_kl.where"),
    "dynamic": (
        "inject", "lambda_end", "schedule", "filter", "reduce", "align", "tokens",
        "keep_refined_groups",
    ),
    "chord": (
        "chord.warmup_steps", "chord.decay_steps", "chord.peak", "chord.valley", "chord.phi",
    ),
}  # fmt: skip
SETTINGS = (
    "algorithm.adv_estimator", "data.train_batch_size",
    "actor_rollout_ref.actor.ppo_mini_batch_size", "actor_rollout_ref.actor.ppo_epochs",
    "actor_rollout_ref.rollout.n", "actor_rollout_ref.rollout.temperature",
    "actor_rollout_ref.actor.optim.lr", "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high", "data.max_prompt_length",
    "data.max_response_length",
)  # fmt: skip


def model_card(
    name: str,
    step: int,
    run: Mapping[str, Any],
    config: Mapping[str, Any],
    evaluations: Mapping[str, Sequence[Scores]],
) -> str:
    """The card of a run's policy after `step` steps.

    `evaluations` are the scores by what they are called, this model's first. Paths of the machine
    that trained it are cut to their last part, and what the run does not say is left out.
    """
    base = str(lookup(config, "actor_rollout_ref.model.path") or "")
    method = METHODS.get(str(run.get("kind")), "a constraint of another kind")
    parts = [
        _front_matter(base),
        f"# {name}",
        f"Trained from `{_public(base) or 'a model unknown'}` with {method}, by online-refiner "
        f"(after [Enhancing Reinforcement Learning Fine-Tuning with an Online Refiner]({PAPER})).",
        "## Training",
        _training(step, run, config),
        "## Settings",
        _settings(str(run.get("kind")), config),
    ]
    if run.get("versions"):
        versions = [f"{package} {number}" for package, number in run["versions"].items()]
        parts += ["## Software", ", ".join(versions)]
    parts += ["## Evaluation", *_evaluation(evaluations)]
    return "\n\n".join(parts) + "\n"


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_hub_name(name: str) -> bool:
    """Whether `name` is OWNER/NAME and not a path."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _front_matter(base: str) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if is_hub_name(base):
        lines.append(f"base_model: {base}")
    return "\n".join([*lines, "tags: [code, reinforcement-learning, online-refiner]", "---"])


def _public(path: str) -> str:
    return path if is_hub_name(path) else PurePath(path).name


def _training(step: int, run: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    files = lookup(config, "data.train_files")
    names = files if isinstance(files, list) else [files] if files else []
    rows = {
        "steps": f"{step} of {run['total_steps']}" if run.get("total_steps") else str(step),
        "constraint": run.get("kind"),
        "λ at the first step": run.get("lambda") if run.get("kind") == "dynamic" else None,
        "arm": run.get("arm"),
        "setting": run.get("setting"),
        "seed": run.get("seed"),
        "training data": ", ".join(_public(str(name)) for name in names),
        "commit": run.get("commit"),
        "started": run.get("started_at"),
        "finished": run.get("finished_at", "not finished"),
    }
    shown = [[key, str(value)] for key, value in rows.items() if value not in (None, "")]
    return table(["", ""], shown)


def _settings(kind: str, config: Mapping[str, Any]) -> str:
    keys = [f"constraint.{key}" for key in CONSTRAINT_SETTINGS.get(kind, ())]
    values = [(key, lookup(config, key)) for key in (*keys, *SETTINGS)]
    rows = [[f"`{key}`", str(value)] for key, value in values if value is not None]
    return table(["key", "value"], rows) if rows else "The run's configuration was not found."


def _evaluation(evaluations: Mapping[str, Sequence[Scores]]) -> list[str]:
    if not evaluations:
        return ["Not evaluated."]
    parts = ["Intervals are 95 %. A score belongs to its protocol: the same model differs by far."]
    for name, scores in evaluations.items():
        parts += [f"### {name}", scores_table(scores)]
        parts += [
            f"{s.benchmark} by difficulty:\n\n{tiers_table(s.tiers)}" for s in scores if s.tiers
        ]
    return parts
