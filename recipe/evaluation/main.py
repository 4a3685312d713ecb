"""The command line: `evaluate` a checkpoint, `compare` evaluations, `publish` a checkpoint."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.evaluation.chat_options import chat_options, in_words
from recipe.evaluation.compare import (
    check_same_problems,
    compare,
    on_common_problems,
    unequal,
)
from recipe.evaluation.engines import VllmEngine
from recipe.evaluation.errors import EvaluationError
from recipe.evaluation.evaluate import Plan, evaluate
from recipe.evaluation.folder import Folder
from recipe.evaluation.generate import Engine, Sampling
from recipe.evaluation.kinds import Benchmark, MbppSplit
from recipe.evaluation.patience import Patience
from recipe.evaluation.problems import load_problems
from recipe.evaluation.protocols import ASKED, protocol_named, protocols_for
from recipe.evaluation.publish import Labels, publish
from recipe.evaluation.tables import scores_table, tiers_table
from reward.config import JudgeConfig, JudgeConfigError, parse_settings
from reward.sandbox.client import SandboxError
from reward.sandbox.packages import installed

BAD_INPUT = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 2, and one message, if something given cannot be used; 130 on Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        text = options.command(options)
    except (EvaluationError, JudgeConfigError, SandboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped; what is done is saved, the same command goes on from it", file=sys.stderr)
        return INTERRUPTED
    print(text)
    return 0


def _evaluate(options: argparse.Namespace) -> str:
    plan = _plan(options)
    if plan.chat_options:
        print(f"chat template: {in_words(plan.chat_options)}", file=sys.stderr)
    scores = evaluate(plan, _engine(options, plan.chat_options), Folder(options.out))
    parts = [scores_table(scores)]
    parts += [f"{s.benchmark} by difficulty\n\n{tiers_table(s.tiers)}" for s in scores if s.tiers]
    parts.append(f"samples, verdicts, programs and results.json: {options.out}")
    return "\n\n".join(parts)


def _plan(options: argparse.Namespace) -> Plan:
    """What is asked for, checked before anything is loaded."""
    sampling = Sampling(
        samples=options.samples,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        max_tokens=options.max_tokens,
    )
    names = tuple(protocol_named(name).name for name in options.protocol)
    ks = tuple(sorted(set(options.pass_at)))
    for k in ks:
        if not 1 <= k <= sampling.samples:
            raise EvaluationError(f"--pass-at {k}: use 1 to --samples, which is {sampling.samples}")
    if options.limit is not None and options.limit < 1:
        raise EvaluationError(f"--limit {options.limit}: use 1 or more problems")
    judge = JudgeConfig.from_mapping(parse_settings(options.set))
    _check_packages(judge)
    paths = [_pair(word, "--benchmark", "NAME=PATH") for word in options.benchmark]
    sets = {}
    for name, path in paths:
        benchmark = Benchmark.parse(name)
        if benchmark in sets:
            raise EvaluationError(f"--benchmark {name}={path}: {name} is given twice; give one")
        if not protocols_for(benchmark.family, names):
            raise EvaluationError(
                f"--protocol {' '.join(names)}: does not apply to {name}; use {', '.join(ASKED)}"
            )
        sets[benchmark] = load_problems(benchmark, Path(path).expanduser())
    split = MbppSplit(options.mbpp_split)
    chat = chat_options(options.tokenizer or options.model, options.chat_option)
    return Plan(
        options.model, sampling, tuple(sets.values()), names, ks, options.limit, judge, split, chat
    )


def _check_packages(judge: JudgeConfig) -> None:
    """The sandbox leaves out what is not installed, and its programs would then fail."""
    for name in judge.package_names:
        if installed(name) is None:
            raise EvaluationError(
                f"--set packages={judge.packages}: {name} is not installed; install it "
                "beside this package, or leave it out"
            )


def _engine(options: argparse.Namespace, chat: Mapping[str, Any]) -> Callable[[], Engine]:
    """Makes the engine, which takes long and is not wanted where every sample exists."""
    settings: dict[str, Any] = parse_settings(options.engine)
    if not options.endpoint:
        return lambda: VllmEngine(options.model, options.tokenizer, settings, chat)
    if settings:
        raise EvaluationError(
            f"--engine {' '.join(options.engine)}: means vLLM in this process; leave it out with "
            "--endpoint"
        )
    if options.concurrency < 1:
        raise EvaluationError(f"--concurrency {options.concurrency}: use 1 or more requests")
    patience = Patience(options.request_timeout, options.retry_for)
    return lambda: _endpoint(options, patience, chat)


def _endpoint(options: argparse.Namespace, patience: Patience, chat: Mapping[str, Any]) -> Engine:
    try:
        from recipe.evaluation.endpoint import EndpointEngine
    except ImportError as error:
        raise EvaluationError(
            f"--endpoint {options.endpoint}: {error}; pip install online-refiner[evaluation]"
        ) from error
    return EndpointEngine(
        options.endpoint,
        options.model,
        options.tokenizer,
        concurrency=options.concurrency,
        patience=patience,
        chat=chat,
    )


def _compare(options: argparse.Namespace) -> str:
    if options.pass_at < 1:
        raise EvaluationError(f"--pass-at {options.pass_at}: use 1 or more")
    pairs = [_pair(word, "folder", "NAME=DIR") for word in options.folders]
    names = [name for name, _ in pairs]
    for name, path in pairs:
        if names.count(name) > 1:
            raise EvaluationError(f"{name}={path}: the name {name} is given twice; use another")
        if not Path(path).is_dir():
            raise EvaluationError(f"{name}={path}: no such folder; give an evaluation's --out")
    folders = {name: Folder(Path(path)) for name, path in pairs}
    arms = {arm: folder.judged() for arm, folder in folders.items()}
    records = {arm: folder.record() for arm, folder in folders.items()}
    if options.common:
        arms = on_common_problems(arms)
    check_same_problems(arms, {arm: record.problems() for arm, record in records.items()})
    notes = unequal({arm: record.conditions() for arm, record in records.items()})
    text = "\n\n".join([*notes, compare(arms, options.pass_at)])
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    return text


def _publish(options: argparse.Namespace) -> str:
    pairs = [_pair(word, "--evaluation", "NAME=DIR") for word in options.evaluation]
    folders = {name: Path(path) for name, path in pairs}
    labels = Labels(options.license, options.base_model)
    lacking = publish(options.checkpoint, options.out, folders, labels)
    for line in lacking:
        print(f"left out of the card: {line}", file=sys.stderr)
    return f"{options.out} is complete; to publish it: hf upload OWNER/NAME {options.out}"


def _pair(word: str, key: str, form: str) -> tuple[str, str]:
    name, separator, value = word.partition("=")
    if not (name and separator and value):
        raise EvaluationError(f"{key} {word!r}: write {form}")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.evaluation",
        description="Benchmarks of code under named protocols. docs/evaluation.md explains them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_evaluate(commands.add_parser("evaluate", help="generate, judge and score; resumes"))
    beside = commands.add_parser("compare", help="evaluations side by side, with the gains")
    beside.add_argument("folders", nargs="+", metavar="NAME=DIR", help="the first is the base")
    beside.add_argument("--pass-at", type=int, default=1, metavar="K")
    beside.add_argument("--common", action="store_true",
                        help="on the problems that all of them have")  # fmt: skip
    beside.add_argument("--out", type=Path, metavar="FILE.md", help="write the tables here too")
    beside.set_defaults(command=_compare)
    merged = commands.add_parser("publish", help="a checkpoint of verl's with a model card")
    merged.add_argument("--checkpoint", required=True, type=Path, metavar="RUN/checkpoints/…")
    merged.add_argument("--out", required=True, type=Path, metavar="DIR",
                        help="new, or what an earlier call made of this checkpoint")  # fmt: skip
    merged.add_argument("--evaluation", nargs="+", default=[], metavar="NAME=DIR",
                        help="evaluations to show, this model's first")  # fmt: skip
    merged.add_argument("--license", metavar="ID", help="of the model, such as apache-2.0")
    merged.add_argument("--base-model", metavar="NAME",
                        help="the base model's name on the hub, if a folder was given")  # fmt: skip
    merged.set_defaults(command=_publish)
    return parser


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_evaluate)
    add = parser.add_argument
    add("--model", required=True, help="folder in Hugging Face form, hub name, or served name")
    add("--benchmark", required=True, nargs="+", metavar="NAME=PATH",
        help=f"local files; NAME is one of {', '.join(Benchmark)}")  # fmt: skip
    add("--protocol", nargs="+", default=list(ASKED), metavar="NAME",
        help=f"{', '.join(ASKED)} (default: all); apps is always asked as in training")  # fmt: skip
    add("--out", required=True, type=Path, metavar="DIR", help="resumed if it exists")
    add("--samples", type=int, default=1, help="responses per problem (default 1)")
    add("--temperature", type=float, default=0.0, help="default 0, greedy")
    add("--top-p", type=float, default=1.0)
    add("--max-tokens", type=int, help="of a response (default: the protocol's)")
    add("--pass-at", type=int, nargs="+", default=[1], metavar="K")
    add("--seed", type=int, default=0)
    add("--limit", type=int, metavar="N", help="the first N problems of each file only")
    add("--mbpp-split", choices=[str(split) for split in MbppSplit], default=str(MbppSplit.ALL),
        help="by number; test is the 500 that most papers evaluate (default all)")  # fmt: skip
    add("--tokenizer", help="if it is not the model's")
    add("--chat-option", action="append", default=[], metavar="KEY=VALUE",
        help="of the chat template, such as enable_thinking=false; repeatable (default: those of "
        "the training, if `publish` wrote the model's folder)")  # fmt: skip
    add("--engine", action="append", default=[], metavar="KEY=VALUE",
        help="an argument of vllm.EngineArgs, such as max_model_len=4096; repeatable")  # fmt: skip
    add("--endpoint", metavar="URL", help="a server's /v1 instead of vLLM in this process")
    add("--concurrency", type=int, default=16, help="requests to the endpoint at once")
    add("--request-timeout", type=float, default=Patience.attempt_s, metavar="SECONDS",
        help="for one reply of the endpoint (default %(default)g)")  # fmt: skip
    add("--retry-for", type=float, default=Patience.total_s, metavar="SECONDS",
        help="for one response, all attempts together (default %(default)g)")  # fmt: skip
    add("--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of the judge, such as timeout_s=20; repeatable")  # fmt: skip
