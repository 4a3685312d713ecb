"""The names the analysis reads: arms in their order, and metrics, each as patterns in order of
preference.

A pattern is matched as in a shell (`*`); the first pattern that any run satisfies is used for all
runs, so that every curve of a panel shows the same quantity.
"""

import textwrap

LABEL_COLUMNS = 22
MAX_LABEL = 88
ARM_ORDER = (
    "none",
    "static_kl",
    "chord_mu",
    "chord_phi",
    "dynamic_sft",
    "dynamic_advantage",
    "dynamic_reward",
)
"""The order of arms in legends and tables: baselines first. Arms not named here follow
alphabetically.
"""

LABELS = {
    "none": "none",
    "static_kl": "static KL",
    "dynamic_sft": "dynamic (sft)",
    "dynamic_advantage": "dynamic (advantage)",
    "dynamic_reward": "dynamic (reward)",
    "chord_mu": "CHORD-µ",
    "chord_phi": "CHORD-φ",
}

REWARD = ("critic/score/mean", "critic/rewards/mean")
VALIDATION = (
    "val-core/*/acc/mean@*",
    "val-core/*/reward/mean@*",
    "val-core/*/mean@*",
    "val-core/*",
)
PASS_AT_1 = ("val-core/*/acc/mean@*", "val-aux/*/solved/mean@*", "val-aux/*/acc/mean@*")
KL_TO_REFERENCE = ("monitor/kl_to_reference",)
CROSS_ENTROPY = ("constraint/ce_mean",)
IMPROVEMENT_RATIO = ("constraint/improvement_ratio",)
COPY_RATIO = ("refiner/copied_token_ratio",)
ENTROPY = ("monitor/entropy", "actor/entropy")
RESPONSE_LENGTH = ("response_length/mean",)
STEP_TIME_S = ("timing_s/step",)
REFINE_WAIT_S = ("timing_s/refine_wait",)
GENERATED_TOKENS = ("refiner/generated_tokens_total",)
EDIT_DISTANCE = ("refiner/edit_distance_mean",)
REWARD_GAIN = ("refiner/reward_gain_mean",)
CE_COPIED = ("constraint/ce_copied_mean",)
CE_EDITED = ("constraint/ce_edited_mean",)
FORMAT_FIXES = ("refiner/format_fix_ratio",)
FAILED = ("refiner/failed_total",)
QUEUE_DEPTH = ("refiner/queue_depth_max",)
REPLICAS_ALIVE = ("refiner/replicas_alive",)
ENGINE_CALLS = ("refiner/engine_calls_total",)
SCORED_TOKENS = ("refiner/scored_tokens_total",)
GROUP_STD = ("monitor/group_reward_std",)
GROUP_DISTINCT = ("monitor/group_distinct_ratio",)
GRADIENT_NORM = ("actor/grad_norm",)
PENALTY = ("constraint/penalty_mean",)
LAMBDA = ("constraint/lambda",)

ROLLOUT_DISAGREEMENT = ("monitor/rollout_logprob_diff_max", "training/rollout_probs_diff_max")
"""Largest difference between rollout engine and actor on one token. verl's own metric, the second
pattern, is a difference of probabilities, not of log-probabilities."""


VARIANT = " · "
"""Stands between an arm's name and the values in which a variant of it differs."""


def arm_key(setting: str, arm: str, variant: str = "") -> str:
    """How an arm is called where runs are grouped; its parts are taken apart by `setting_of` and
    `base_of`.
    """
    name = f"{setting}/{arm}" if setting else arm
    return f"{name}{VARIANT}{variant}" if variant else name


def setting_of(key: str) -> str:
    """The setting of an arm's key, empty if all runs have the same."""
    return key.partition(VARIANT)[0].rpartition("/")[0]


def base_of(key: str) -> str:
    """The arm's own name, without setting and variant."""
    return key.partition(VARIANT)[0].rpartition("/")[2]


def wrapped_label_of(arm: str) -> str:
    """The name in lines short enough for an axis: an arm of a user's own is named by its keys."""
    return textwrap.fill(label_of(arm), LABEL_COLUMNS)


def label_of(arm: str) -> str:
    """The name a reader sees; unknown arms keep their own, cut if it is too long to draw."""
    setting, name, variant = setting_of(arm), base_of(arm), arm.partition(VARIANT)[2]
    label = LABELS.get(name, name)
    return cut(
        f"{setting}: {label}" if setting else label, f"{VARIANT}{variant}" if variant else ""
    )


def cut(name: str, ending: str = "") -> str:
    """The name with its ending, cut if it is too long to draw."""
    whole = name + ending
    return whole if len(whole) <= MAX_LABEL else f"{whole[: MAX_LABEL - 1]}…"
