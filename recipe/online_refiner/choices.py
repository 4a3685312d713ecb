"""Every choice that the configuration offers, and every name that two modules share.

Nothing here imports more than the standard library, so that any module can use a name without
loading Ray, verl or torch.
"""

from enum import StrEnum


class Inject(StrEnum):
    """Where the dynamic constraint enters (`constraint.inject`)."""

    REWARD = "reward"
    ADVANTAGE = "advantage"
    SFT = "sft"


class Place(StrEnum):
    """What a penalty is taken from."""

    REWARDS = "rewards"
    ADVANTAGES = "advantages"


class Stage(StrEnum):
    """The part of a step that is the first to read its refinements, in the order of a step."""

    LOG_PROBS = "log_probs"
    ADVANTAGES = "advantages"
    UPDATE = "update"


class Filter(StrEnum):
    """Which refinements are accepted, by the unshaped rewards of a' and a (paper: better)."""

    BETTER = "better"
    NOT_WORSE = "not_worse"
    OFF = "off"


class Reduce(StrEnum):
    """Whether a response's cross entropy is Σc_t or Σc_t / |tokens| (the paper does not say)."""

    SUM = "sum"
    MEAN = "mean"


class Conditioning(StrEnum):
    """What the policy has read when it is asked for a'_t: s0 and a_<t, or s0 and a'_<t."""

    SELF_FEEDING = "self_feeding"
    TEACHER_FORCING = "teacher_forcing"


class Accumulate(StrEnum):
    """Whether a penalty on the advantages also falls on the steps before it."""

    RETURN_TO_GO = "return_to_go"
    NONE = "none"


class Tokens(StrEnum):
    """Which tokens of a' are in the token mask (paper: all; the others are ours)."""

    ALL = "all"
    AFTER_DIVERGENCE = "after_divergence"
    EDITED = "edited"
    FIRST_EDIT = "first_edit"
    ALIGNED = "aligned"


class Align(StrEnum):
    """Onto which tokens of a the cross entropy on a' is put, whose length differs (ours)."""

    POSITION = "position"
    LAST = "last"
    EDIT = "edit"


class Schedule(StrEnum):
    """How λ changes over training. `adaptive` follows the improvement ratio (ours)."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"
    ADAPTIVE = "adaptive"


class Feedback(StrEnum):
    """What the refiner is told: nothing, the verdict, or the first failing test as well."""

    NONE = "none"
    VERDICT = "verdict"
    FAILING_TEST = "failing_test"


class Placement(StrEnum):
    """Where the refiner's servers run (`refiner.placement`)."""

    COLOCATED = "colocated"
    POOL = "pool"
    SHARED_BASE = "shared_base"


class Source(StrEnum):
    """Which weights refine (`refiner.source`)."""

    REFERENCE = "reference"
    MODEL = "model"
    EMA = "ema"


class Mode(StrEnum):
    """verl's trainer modes that our trainer takes the place of (`trainer.v1.trainer_mode`)."""

    SYNC = "sync"
    COLOCATE_ASYNC = "colocate_async"
    SEPARATE_ASYNC = "separate_async"


CRITIC_FREE_ESTIMATORS = (
    *("grpo", "grpo_vectorized", "grpo_passk", "rloo", "rloo_vectorized", "opo", "gpg"),
    *("reinforce_plus_plus", "reinforce_plus_plus_baseline"),
)
"""verl's estimators that need rewards, masks and groups alone (`algorithm.adv_estimator`)."""
ESTIMATORS = (
    *("gae", *CRITIC_FREE_ESTIMATORS, "remax", "gdpo"),
    *("optimal_token_baseline", "tir_optimal_token_baseline"),
)
"""All of verl's estimators."""

ACTOR_POOL = "global_pool"
"""verl's name of the GPUs on which the actor trains."""
REWARD_POOL = "reward_pool"
"""verl's name of a served reward model's GPUs."""
REFINER_POOL = "refiner_pool"
"""Our name of the refiner's GPUs, with `refiner.placement=pool`."""

REFINABLE = "refinable_"
"""Prefix of the group filter's metric when an accepted refinement keeps a group."""

REFINEMENT_KEY = "refine"
"""Key of a row's `extra_fields` that holds its `Refinement`, as a plain dict."""
JUDGE_FAILED_KEY = "judge_failed"
"""A reward function sets this extra to 1 when it has no verdict; the sample is then masked out."""
FAILING_TEST_KEY = "failing_test"
"""The extra of a reward function that holds the first failing test, as text."""

NUMBER_FIELD = "refine_number"
"""Field of every row in an update with additions: the number from 1 by which the loss reports on
the row; 0 on other rows. A scalar, which costs nothing to take apart."""
WEIGHT_FIELD = "refine_weight"
"""Field of a row in the update, per response token: its weight in our term; 0 on policy rows."""
LABEL_FIELD = "refine_label"
"""Field of a row, per response token: the token of a' asked for in its state, in one value with its
weight (`queue.label_code`). In the update it stands in the place of WEIGHT_FIELD."""
NO_LABEL = -1
LABEL_MARGIN = "refine_label_margin"
"""Model output, per token: log π(label) - log π(the row's own token), 0 without a label."""
TARGET_IDS_FIELD = "refine_target_ids"
"""Field of a row in the update, flat: the k tokens of each response token's target; NO_LABEL alone
if the row has no targets."""
TARGET_LOG_PROBS_FIELD = "refine_target_log_probs"
"""The same of their log-probabilities in nats."""
TARGET_MARGIN = "refine_target_margin"
"""Model output, per token with a target q: Σ_i q_i·m_i, m_i = log π(i) - log π(own token)."""
TARGET_LOG_REST = "refine_target_log_rest"
"""Model output, per token with a target: log Σ_j exp m_j over all tokens that it does not list."""
MEASURE = "refine_measure"
"""Setting of a whole batch: the pass is made for the model outputs; there is nothing to learn."""
POLICY_SHARE = "policy_share"
"""Setting of a whole batch: the factor on verl's loss, 1 - μ with CHORD."""
TOKEN_FACTOR = "expert_phi"
"""Setting of a whole batch: whether CHORD's token factor φ is on."""
CROSS_ENTROPY_METRIC = "refine_ce"
"""Metric of the loss: (number, [c_t in nats]) of each numbered row."""
DIVERGENCE_METRIC = "refine_kl"
"""Metric of the loss: (number, [KL in nats]) of each numbered row with targets."""
CROSS_ENTROPY_PARTITION = "refine_ce"
"""TransferQueue's partition of rows whose c_t is measured; verl's samples live in `train`."""
