"""`python -m reward.judge`: files of problems and of programs in, a file of verdicts out."""

import argparse
import gzip
import json
import re
import sys
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from reward import jsontext
from reward.config import JudgeConfig, JudgeConfigError, add_settings_option, parse_settings
from reward.extract import Extract, extract
from reward.judge import Judge
from reward.problem import MalformedProblem, Problem, parse_problem
from reward.quality import without_examples
from reward.sandbox.client import SandboxError
from reward.verdict import JudgeResult, Verdict

UNREADABLE = "unreadable"

_ID = re.compile(rb'"(?:problem_id|task_id)"\s*:\s*("[^"\\]{1,200}"|\d{1,20})')
_AHEAD = 8  # programs submitted but not yet written, per worker
_HELP = """\
problems: one JSON object per line, in APPS form (problem_id, input_output) or in HumanEval form
          (task_id or problem_id, prompt, entry_point, test); .gz is read too; `question` is used by
          --set drop_prompt_examples=true
programs: one per line: problem_id and code, or problem_id and solution, an answer to extract from
out:      one line per program, in the same order: problem_id, verdict, passed, total, score, level,
          seconds, detail
"""


class InputError(ValueError):
    """A file that cannot be used; the message says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge a file of programs; the exit status is 0 if every program has a line."""
    options = _parser().parse_args(arguments)
    try:
        config = JudgeConfig.from_mapping(parse_settings(options.set))
        problems, quarantine = read_problems(options.problems, config)
        programs = list(records(options.programs))
        with Judge(config) as judge, open(options.out, "w") as out:
            counts = _judge_all(judge, problems, quarantine, programs, out)
        if options.quarantine:
            lines = (json.dumps({"problem_id": k, "reason": v}) for k, v in quarantine.items())
            Path(options.quarantine).write_text("".join(f"{line}\n" for line in lines))
    except (InputError, JudgeConfigError, SandboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _summary(counts, quarantine)
    return 0


def read_problems(path: Path, config: JudgeConfig) -> tuple[dict[str, Problem], dict[str, str]]:
    """The problems of a file by id, and why others of it cannot be judged."""
    problems: dict[str, Problem] = {}
    quarantine: dict[str, str] = {}
    for number, record in enumerate(records(path), start=1):
        problem_id = identity(record) or (f"line {number}" if UNREADABLE in record else "")
        if not problem_id:
            raise InputError(f"{path}:{number}: no problem_id")
        if problem_id in problems or problem_id in quarantine:
            raise InputError(f"{path}:{number}: problem_id {problem_id} occurs twice")
        if UNREADABLE in record:
            quarantine[problem_id] = record[UNREADABLE]
            continue
        try:
            problem = parse_problem(record)
        except MalformedProblem as error:
            quarantine[problem_id] = str(error)
            continue
        if config.drop_prompt_examples:
            question = str(record.get("question", ""))
            problem = without_examples(problem, question, config.min_tests)
        problems[problem_id] = problem
    return problems, quarantine


def _judge_all(
    judge: Judge,
    problems: Mapping[str, Problem],
    quarantine: Mapping[str, str],
    programs: Sequence[Mapping[str, Any]],
    out: TextIO,
) -> Counter[str]:
    counts: Counter[str] = Counter()
    waiting: deque[tuple[str, Future[JudgeResult]]] = deque()
    with ExitStack() as stack:
        quiet = not sys.stderr.isatty()
        bar = stack.enter_context(tqdm(total=len(programs), unit="program", disable=quiet))

        def write_first() -> None:
            problem_id, future = waiting.popleft()
            result = future.result()
            counts[result.verdict] += 1
            out.write(json.dumps(_line(problem_id, result)) + "\n")
            out.flush()
            bar.update()

        for program in programs:
            waiting.append((identity(program), _submit(judge, problems, quarantine, program)))
            if len(waiting) >= _AHEAD * judge.config.worker_count:
                write_first()
        while waiting:
            write_first()
    return counts


def _submit(
    judge: Judge,
    problems: Mapping[str, Problem],
    quarantine: Mapping[str, str],
    program: Mapping[str, Any],
) -> "Future[JudgeResult]":
    problem_id = identity(program)
    if UNREADABLE in program:
        return _refused(f"unreadable: {program[UNREADABLE]}")
    if problem_id in quarantine:
        return _refused(f"malformed problem: {quarantine[problem_id]}")
    if problem_id not in problems:
        return _refused(f"no problem with problem_id {problem_id!r}")
    if isinstance(program.get("code"), str):
        return judge.submit(problems[problem_id], program["code"])
    if isinstance(program.get("solution"), str):
        code = extract(program["solution"], Extract(judge.config.extract))
        return judge.submit(problems[problem_id], code)
    return _refused("the program has neither `code` nor `solution`")


def _refused(reason: str) -> "Future[JudgeResult]":
    future: Future[JudgeResult] = Future()
    future.set_result(JudgeResult(Verdict.INTERNAL_ERROR, 0, 0, 0.0, 0, 0.0, reason))
    return future


def _line(problem_id: str, result: JudgeResult) -> dict[str, Any]:
    return {
        "problem_id": problem_id,
        "verdict": str(result.verdict),
        "passed": result.passed,
        "total": result.total,
        "score": result.score,
        "level": result.level,
        "seconds": round(result.seconds, 6),
        "detail": result.detail,
    }


def identity(record: Mapping[str, Any]) -> str:
    """The id of a problem, or of the problem that a program is for; empty if there is none."""
    return str(record.get("problem_id", record.get("task_id", "")))


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines.

    A line that is JSON but cannot be read, nested too deeply or with too long a number, becomes a
    record with UNREADABLE in place of its content.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _record(line, f"{path}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: a damaged gzip file: {error}") from error


def _record(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = jsontext.loads(line)
    except RecursionError:
        return _unreadable(line, "nested too deeply")
    except jsontext.UnreadableNumber as error:
        return _unreadable(line, str(error))
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8: {error}") from error
    except ValueError as error:
        raise InputError(f"{place}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{place}: not a JSON object")
    return record


def _unreadable(line: bytes, reason: str) -> dict[str, Any]:
    """A record with what can be made out of its identity."""
    match = _ID.search(line)
    found = match[1].decode("utf-8", "replace").strip('"') if match else ""
    return {"problem_id": found, UNREADABLE: reason}


def _summary(counts: Counter[str], quarantine: Mapping[str, str]) -> None:
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{counts.total()} programs: {shown or 'none'}", file=sys.stderr)
    if quarantine:
        print(f"{len(quarantine)} problems are malformed and were not judged:", file=sys.stderr)
    for problem_id, reason in list(quarantine.items())[:10]:
        print(f"  {problem_id}: {reason}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reward.judge",
        description="Judge programs in a sandbox.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--problems", type=Path, required=True, metavar="P.jsonl")
    parser.add_argument("--programs", type=Path, required=True, metavar="G.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="V.jsonl")
    parser.add_argument(
        "--quarantine", type=Path, metavar="Q.jsonl", help="write malformed problems here"
    )
    add_settings_option(parser)
    return parser
