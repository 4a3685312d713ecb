"""A critic whose attention runs without an accelerator."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def load_critic_with_sdpa(model_utils: ModuleType) -> None:
    """Load value models with PyTorch's own attention.

    Symptom: "model(...) is not a value head model, please install trl to make it valid" at the
    start of a run with a critic. Behind it stands an ImportError: verl loads value models with
    `attn_implementation="flash_attention_2"` whatever the config says (`verl/utils/model.py`), and
    FlashAttention 2 is CUDA only.
    """

    def load(local_path: str, torch_dtype: Any, model_config: Any, trust_remote_code: bool) -> Any:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(
            local_path,
            torch_dtype=torch_dtype,
            config=model_config,
            attn_implementation="sdpa",
            trust_remote_code=trust_remote_code,
        )

    model_utils.load_valuehead_model = load  # type: ignore[attr-defined]
