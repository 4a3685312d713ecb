"""A model card in Markdown from what a run and its evaluations left behind. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from recipe.evaluation.chat_options import in_words
from recipe.evaluation.folder import Record
from recipe.evaluation.results import Scores
from recipe.evaluation.tables import scores_table, table, tiers_table

PAPER = "https://arxiv.org/abs/2603.18088"
MODEL_PATH = "actor_rollout_ref.model.path"
CHAT_KEY = "data.apply_chat_template_kwargs"
CITATION = """@misc{onlinerefiner2026,
  title  = {Enhancing Reinforcement Learning Fine-Tuning with an Online Refiner},
  author = {Ma and Pu and Liu and Ai},
  year   = {2026},
  note   = {arXiv:2603.18088}
}"""
DATASETS = {
    "humaneval": "openai/openai_humaneval",
    "humaneval_plus": "evalplus/humanevalplus",
    "mbpp": "google-research-datasets/mbpp",
    "mbpp_plus": "evalplus/mbppplus",
}
METHODS = {
    "none": "no constraint",
    "static_kl": "a static KL constraint to the reference model",
    "dynamic": "the dynamic constraint of an online refiner",
    "distill": "distillation of an online refiner's distributions",
    "chord": "CHORD (arXiv 2508.11408)",
}
WEIGHTED = ("dynamic", "distill")
"""The kinds whose weight is λ."""
# The config's keys that a reader asks for, in the order of the card: first those that the kind of
# constraint reads, then the algorithm's.
CONSTRAINT_SETTINGS = {
    "static_kl": ("static_kl.coef", "static_kl.where"),
    "dynamic": (
        "inject", "lambda_end", "schedule", "filter", "reduce", "align", "tokens",
        "keep_refined_groups",
    ),
    "distill": (
        "distill.top_k", "lambda_end", "schedule", "filter", "reduce", "tokens",
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


@dataclass(frozen=True)
class Trained:
    """A policy and where it comes from.

    Attributes:
        step: of the checkpoint.
        run, config: the run's run.json and config.yaml; empty if they were not found.
        license, base_model: the hub's identifiers, if given.
        template: what the model reads where a user writes `{problem}`.
    """

    step: int
    run: Mapping[str, Any]
    config: Mapping[str, Any]
    license: str | None = None
    base_model: str | None = None
    template: str | None = None

    @property
    def base(self) -> str:
        """The model it was trained from, as it may be shown."""
        return self.base_model or _public(str(lookup(self.config, MODEL_PATH) or ""))

    @property
    def kind(self) -> str:
        return str(self.run.get("kind"))


@dataclass(frozen=True)
class Evaluated:
    """The scores of an evaluation and what is recorded of how they came about."""

    scores: Sequence[Scores]
    record: Record


def model_card(name: str, trained: Trained, evaluations: Mapping[str, Evaluated]) -> str:
    """The card of a policy; `evaluations` by what they are called, this model's first.

    Paths of the machine that trained it are cut to their last part, and what is not known is left
    out, except the licence, of which the card says so.
    """
    method = METHODS.get(trained.kind, "a constraint of another kind")
    own = next(iter(evaluations.values()), None)
    parts = [
        f"---\n{_metadata(name, trained, own)}---",
        f"# {name}",
        f"Trained from `{trained.base or 'a model unknown'}` with {method}, by online-refiner "
        f"(after [Enhancing Reinforcement Learning Fine-Tuning with an Online Refiner]({PAPER})).",
        *_use(name, trained),
        "## Training",
        _training(trained.step, trained.run, trained.config),
        "## Settings",
        _settings(trained.kind, trained.config),
    ]
    if trained.run.get("versions"):
        versions = [f"{package} {number}" for package, number in trained.run["versions"].items()]
        parts += ["## Software", ", ".join(versions)]
    parts += ["## Evaluation", *_evaluation(evaluations), *_closing(trained)]
    return "\n\n".join(parts) + "\n"


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_hub_name(name: str) -> bool:
    """Whether `name` is OWNER/NAME and not a path."""
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _metadata(name: str, trained: Trained, own: Evaluated | None) -> str:
    """The card's head, in the hub's form."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [EvalResult(**result) for result in _results(own)] if own else []
    data = ModelCardData(
        license=trained.license,
        base_model=trained.base if is_hub_name(trained.base) else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["code", "reinforcement-learning", "online-refiner"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml()) + "\n"


def _results(own: Evaluated) -> list[dict[str, Any]]:
    """pass@1 of every benchmark of which all problems were evaluated."""
    return [
        {
            "task_type": "text-generation",
            "dataset_type": DATASETS.get(score.benchmark, score.benchmark),
            "dataset_name": _dataset(score.benchmark, own.record),
            "metric_type": "pass@1",
            "metric_name": f"pass@1, protocol {score.protocol}, {_sampling(own.record)}",
            "metric_value": round(score.pass_at[1].value, 4),
        }
        for score in own.scores
        if 1 in score.pass_at and score.problems == own.record.size(score.benchmark)
    ]


def _dataset(benchmark: str, record: Record) -> str:
    split = record.content.get("mbpp_split")
    return f"{benchmark}, split {split}" if benchmark == "mbpp" and split else benchmark


def _use(name: str, trained: Trained) -> list[str]:
    parts = ["## How to use", f"```bash\nvllm serve {name} --generation-config vllm\n```"]
    if trained.template:
        fence, options = "`" * 4, in_words(lookup(trained.config, CHAT_KEY) or {})
        given = f" and {options}, as in training," if options else ","
        parts += [
            f"The tokenizer's chat template, with the problem as the user's message{given} gives:",
            f"{fence}text\n{trained.template}\n{fence}",
        ]
    if "apps" in str(lookup(trained.config, "reward.custom_reward_function.path")):
        parts.append(
            "It was rewarded for one program a response, in exactly one block fenced as "
            "`python`; ask for that form."
        )
    return parts


def _closing(trained: Trained) -> list[str]:
    """What it is not for, the licence, and what to cite."""
    limits = (
        "Reward and evaluation run programs against tests. Neither says anything of readability, "
        "security, other languages, or tasks without tests, and its programs are untrusted: run "
        "them in a sandbox. What the base model says wrongly or unfairly, this one may say too."
    )
    licence = (
        f"{trained.license}, as whoever published it says."
        if trained.license
        else "Not stated. The licences of base model and training data decide; ask before use."
    )
    cite = f"```bibtex\n{CITATION}\n```"
    return ["## Limits", limits, "## Licence", licence, "## Citation", cite]


def _public(path: str) -> str:
    return path if is_hub_name(path) else PurePath(path).name


def _training(step: int, run: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    files = lookup(config, "data.train_files")
    names = files if isinstance(files, list) else [files] if files else []
    rows = {
        "steps": f"{step} of {run['total_steps']}" if run.get("total_steps") else str(step),
        "constraint": run.get("kind"),
        "λ at the first step": run.get("lambda") if run.get("kind") in WEIGHTED else None,
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


def _evaluation(evaluations: Mapping[str, Evaluated]) -> list[str]:
    if not evaluations:
        return ["Not evaluated."]
    parts = ["Intervals are 95 %. A score belongs to its protocol: the same model differs by far."]
    for name, one in evaluations.items():
        parts += [f"### {name}", _conditions(one), scores_table(one.scores)]
        parts += [
            f"{s.benchmark} by difficulty:\n\n{tiers_table(s.tiers)}" for s in one.scores if s.tiers
        ]
    return parts


def _conditions(one: Evaluated) -> str:
    """How the scores came about, in one line."""
    content = one.record.content
    words = [f"Model `{_public(str(content.get('model')))}`"]
    words.append(
        f"weights `{one.record.weights[:12]}`" if one.record.weights else "weights unknown"
    )
    words.append(_sampling(one.record))
    if one.record.chat_options:
        words.append(f"chat template with {in_words(one.record.chat_options)}")
    if content.get("max_tokens"):
        words.append(f"at most {content['max_tokens']} tokens")
    words += [str(content[key]) for key in ("engine", "scored_at") if content.get(key)]
    sizes = {s.benchmark: (s.problems, one.record.size(s.benchmark)) for s in one.scores}
    words += [
        f"{some} of {every} problems of {benchmark}"
        + (f" (--limit {content['limit']})" if content.get("limit") else "")
        for benchmark, (some, every) in sizes.items()
        if some != every
    ]
    return ", ".join(words) + "."


def _sampling(record: Record) -> str:
    temperature, top_p = record.content.get("temperature"), record.content.get("top_p")
    if not temperature:
        return "sampling unknown" if temperature is None else "greedy"
    return f"temperature {temperature}, top-p {top_p}"
