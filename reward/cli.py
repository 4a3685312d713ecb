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
from reward.extract import Extract
from reward.judge import Judge
from reward.outputs import OutputError, check_outputs
from reward.problem import MalformedProblem, Problem, parse_problem
from reward.quality import without_examples
from reward.sandbox.client import SandboxError
from reward.submission import NoSubmission, program_in
from reward.verdict import JudgeResult, Verdict

UNREADABLE = "unreadable"

_ID = re.compile(rb'"(?:problem_id|task_id)"\s*:\s*("[^"\\]{1,200}"|\d{1,20})')
_SHOWN = 10
_AHEAD = 8  # programs submitted but not yet written, per worker
_HELP = """\
problems: one JSON object per line, in APPS form (problem_id, input_output) or in HumanEval form
          (task_id or problem_id, prompt, entry_point, test); .gz is read too; `question` is used by
          --set drop_prompt_examples=true
programs: one per line: problem_id and code, or problem_id and response, of which the program is
          extracted (solution is another name of it)
out:      one line per program, in the same order: problem_id, verdict, passed, total, score, level,
          seconds, detail
exit:     0; 1 if nothing could be judged; 3 if all was judged but lines that are no records
"""
FAULTY_LINES = 3
"""The exit status if lines of a file are no records."""


class InputError(ValueError):
    """A file that cannot be used; the message says where and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge a file of programs; the exit status is 0 if every line of both files was a record."""
    options = _parser().parse_args(arguments)
    try:
        config = JudgeConfig.from_mapping(parse_settings(options.set))
        check_outputs(
            {"--out": options.out, "--quarantine": options.quarantine},
            (options.problems, options.programs),
        )
        faulty: list[str] = []
        problems, quarantine = read_problems(options.problems, config, faulty)
        programs = [record for _, record in records(options.programs, faulty)]
        with Judge(config) as judge, open(options.out, "w") as out:
            counts = _judge_all(judge, problems, quarantine, programs, out)
        if options.quarantine:
            lines = (json.dumps({"problem_id": k, "reason": v}) for k, v in quarantine.items())
            Path(options.quarantine).write_text("".join(f"{line}\n" for line in lines))
    except (InputError, OutputError, JudgeConfigError, SandboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _summary(counts, quarantine, faulty)
    return FAULTY_LINES if faulty else 0


def read_problems(
    path: Path, config: JudgeConfig, faulty: list[str] | None = None
) -> tuple[dict[str, Problem], dict[str, str]]:
    """The problems of a file by id, and why others of it cannot be judged.

    Lines that are no records, or name no problem or one that has been named, are added to `faulty`.
    """
    problems: dict[str, Problem] = {}
    quarantine: dict[str, str] = {}
    faulty = [] if faulty is None else faulty
    for number, record in records(path, faulty):
        problem_id = identity(record)
        if not problem_id:
            problem_id = f"line {number}"
            if UNREADABLE not in record:
                record = _faulty(record, f"{path}:{number}: no problem_id", faulty)
        elif problem_id in problems or problem_id in quarantine:
            problems.pop(problem_id, None)
            record = _faulty(record, f"{path}:{number}: problem_id {problem_id} again", faulty)
        if UNREADABLE in record:
            quarantine[problem_id] = record[UNREADABLE]
            continue
        try:
            problems[problem_id] = _problem(record, config)
        except MalformedProblem as error:
            quarantine[problem_id] = str(error)
    return problems, quarantine


def _problem(record: Mapping[str, Any], config: JudgeConfig) -> Problem:
    problem = parse_problem(record)
    if not config.drop_prompt_examples:
        return problem
    return without_examples(problem, str(record.get("question", "")), config.min_tests)


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
    try:
        code = program_in(program, Extract(judge.config.extract))
    except NoSubmission as error:
        return _refused(str(error))
    return judge.submit(problems[problem_id], code)


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


def records(path: Path, faulty: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file of JSON lines, with the numbers of their lines.

    A line that cannot be read becomes a record with UNREADABLE, the reason, in place of its
    content. If it is no JSON object at all, the reason is added to `faulty`; if it is nested too
    deeply or has too long a number, that is only told.
    """
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _record(line, f"{path}:{number}", faulty)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: a damaged gzip file: {error}") from error


def _record(line: bytes, place: str, faulty: list[str]) -> dict[str, Any]:
    match = _ID.search(line)
    known = {"problem_id": match[1].decode("utf-8", "replace").strip('"') if match else ""}
    try:
        record = jsontext.loads(line)
    except RecursionError:
        return known | {UNREADABLE: "nested too deeply"}
    except jsontext.UnreadableNumber as error:
        return known | {UNREADABLE: str(error)}
    except UnicodeDecodeError as error:
        return _faulty(known, f"{place}: not UTF-8: {error}", faulty)
    except ValueError as error:
        return _faulty(known, f"{place}: not JSON: {error}", faulty)
    if not isinstance(record, dict):
        return _faulty({}, f"{place}: not a JSON object", faulty)
    return record


def _faulty(record: Mapping[str, Any], reason: str, faulty: list[str]) -> dict[str, Any]:
    """What is left of a line that is at fault, which is noted."""
    faulty.append(reason)
    return {"problem_id": identity(record), UNREADABLE: reason}


def _summary(counts: Counter[str], quarantine: Mapping[str, str], faulty: Sequence[str]) -> None:
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{counts.total()} programs: {shown or 'none'}", file=sys.stderr)
    if quarantine:
        print(f"{len(quarantine)} problems are malformed and were not judged:", file=sys.stderr)
    for problem_id, reason in list(quarantine.items())[:_SHOWN]:
        print(f"  {problem_id}: {reason}", file=sys.stderr)
    if faulty:
        print(f"{len(faulty)} lines are no records and were not judged:", file=sys.stderr)
    for reason in faulty[:_SHOWN]:
        print(f"  {reason}", file=sys.stderr)


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
