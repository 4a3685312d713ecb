"""Command line that trains the tiny model, measures it and writes its folder with a README.

Takes about ten minutes on one free core; progress is shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

from recipe.cpu.micro_tasks import Split
from recipe.cpu.tiny_model import save, train_tokenizer
from recipe.cpu.tiny_model_evaluate import EVALUATION_SEED, Figures, evaluate
from recipe.cpu.tiny_model_train import WarmStart, warm_start

_TEMPERATURES = ((1.0, 1.0), (1.0, 0.0), (0.0, 0.0))  # of writing, of refining
_COLUMNS = ("passed", "verbatim_of_right", "fixed_of_wrong", "improved", "harmed")

_README = """# The tiny model

Qwen2's architecture, {parameters:,} parameters in fp32, 512 tokens; trained from scratch on
micro-APPS (`recipe/cpu/micro_apps.py`) to write programs carelessly and to refine them with care,
under the template `micro-v1`. It knows nothing else. It is the quickstart's policy and refiner.

Made, with the figures below, by (PyTorch {torch}, one CPU thread):

```
{command}
```

Fractions over {samples} problems each, seed {evaluation_seed}, judged in the sandbox. The test
problems have parameters that no training problem has. *Write* and *refine* are temperatures, 0 is
greedy. *Verbatim* is of right answers, *fixed* of wrong ones, the others of all.

| problems | write | refine | passed | verbatim | fixed | improved | harmed |
|---|---|---|---|---|---|---|---|
{rows}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, saves, measures; the README holds the command and the figures."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = WarmStart(seed=options.seed, steps=options.steps)
    tokenizer = train_tokenizer(options.seed)
    model = warm_start(tokenizer, settings)
    save(model, tokenizer, options.out)
    write_readme(model, tokenizer, options.out, settings, options.samples)
    print(f"tiny model: {options.out}")
    return 0


def write_readme(
    model: Qwen2ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    out: Path,
    settings: WarmStart,
    samples: int,
) -> None:
    """Measures the model on train and test problems and writes `README.md` beside it."""
    rows = []
    for split in Split:
        for write, refine in _TEMPERATURES:
            figures = evaluate(
                model,
                tokenizer,
                split,
                count=samples,
                write_temperature=write,
                refine_temperature=refine,
                seed=EVALUATION_SEED,
            )
            rows.append(_row(split, write, refine, figures))
    command = (
        f"python -m recipe.cpu.make_tiny_model --seed {settings.seed} --steps {settings.steps}"
    )
    text = _README.format(
        parameters=model.num_parameters(),
        torch=torch.__version__,
        command=command,
        samples=samples,
        evaluation_seed=EVALUATION_SEED,
        rows="\n".join(rows),
    )
    (out / "README.md").write_text(text)


def _row(split: Split, write: float, refine: float, figures: Figures) -> str:
    cells = [f"{getattr(figures, column):.3f}" for column in _COLUMNS]
    row = f"| {' | '.join([split.value, f'{write:g}', f'{refine:g}', *cells])} |"
    print(row, flush=True)
    return row


def _parser() -> argparse.ArgumentParser:
    defaults = WarmStart()
    parser = argparse.ArgumentParser(
        prog="python -m recipe.cpu.make_tiny_model",
        description="Train the tiny model of the quickstart.",
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--samples", type=int, default=512, help="problems per measurement")
    parser.add_argument("--threads", type=int, default=1, help="more pays on idle cores only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
