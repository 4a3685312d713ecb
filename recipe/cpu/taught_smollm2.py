"""SmolLM2-135M after a short warm start: a pretrained model that writes and refines micro-APPS.

As it comes, SmolLM2 solves next to no problem of micro-APPS, and as a refiner it repeats what is
wrong. The warm start gives it the tiny model's lessons under the same template, some hundred
examples of each. It is made once, on this machine, into the user's cache.
`python -m recipe.cpu.taught_smollm2` makes it, with as many threads as there are processors, and
measures it.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipe.cpu.made_once import made_once, user_cache
from recipe.cpu.micro_tasks import Split
from recipe.cpu.pretrained_model import PACKAGE, ensure_smollm2
from recipe.cpu.tiny_model_evaluate import EVALUATION_SEED, evaluate
from recipe.cpu.tiny_model_train import WarmStart, teach_micro_apps

WARM_START = WarmStart(
    steps=30, batch_size=16, learning_rate=2e-4, prompt_loss_weight=0.0, warmup_steps=5
)
REVISION = 1
"""Raised whenever this module writes something else, so that what is in the cache is not used."""


def ensure_taught_smollm2(cache: Path | None = None) -> Path:
    """Its folder below `cache` (the user's by default), made if it is not there.

    Raises FileNotFoundError with the fix if the package with the weights is not installed.
    """
    source = ensure_smollm2(cache)
    name = f"smollm2-135m-micro-apps-{version(PACKAGE)}-{REVISION}"
    folder = (cache or user_cache()) / name
    return made_once(folder, lambda partial: write_taught(source, partial, WARM_START))


def write_taught(source: Path, folder: Path, settings: WarmStart) -> None:
    """Teach the model in `source` and write it to `folder`, in bf16 as its source."""
    torch.manual_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
    )
    teach_micro_apps(model, tokenizer, [optimizer], settings)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Make it, and print how well it writes and refines at temperature 1, by split."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = ensure_taught_smollm2()
    print(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for split in Split:
        figures = evaluate(
            model,
            tokenizer,
            split,
            count=128,
            write_temperature=1.0,
            refine_temperature=1.0,
            seed=EVALUATION_SEED,
        )
        print(f"{split.value}: {figures}")


if __name__ == "__main__":
    main()
