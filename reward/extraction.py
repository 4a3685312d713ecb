"""Compare the rules that choose a response's program: how many find one, and how many right ones.

    python -m reward.extraction --problems P.jsonl --responses R.jsonl

The program that each rule takes from each response is judged. The table counts by model and by what
a response shows: one block of Python, several, or only blocks that declare no language.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from reward.cli import UNREADABLE, InputError, identity, read_problems, records
from reward.config import JudgeConfig, JudgeConfigError, add_settings_option, parse_settings
from reward.extract import Extract, Shown, extract, shown
from reward.judge import Judge
from reward.outputs import OutputError, check_outputs
from reward.problem import Problem
from reward.sandbox.client import SandboxError
from reward.submission import NoSubmission, response_in
from reward.verdict import JudgeResult, Verdict

RULES = tuple(how for how in Extract if how != Extract.BARE)
ALL_MODELS = "all models"
_HELP = """\
problems:  as for python -m reward.judge
responses: one JSON object per line: problem_id, response, and model if there are several. In those
           to problems that are not in the first file, programs are counted but not judged
"""


@dataclass(frozen=True)
class Response:
    """A model's response to a problem."""

    model: str
    problem_id: str
    text: str


@dataclass
class Count:
    """What one rule made of a group of responses."""

    responses: int = 0
    programs: int = 0  # responses in which it finds one
    judged: int = 0  # responses to problems with tests
    accepted: int = 0

    def add(self, code: str | None, result: JudgeResult | None) -> None:
        """Count one more response, its program under the rule, and the verdict if there is one."""
        self.responses += 1
        self.programs += code is not None
        self.judged += result is not None
        self.accepted += result is not None and result.verdict == Verdict.ACCEPTED


Group = tuple[str, Shown]
Table = dict[Group, dict[Extract, Count]]


def compare(judge: Judge, problems: Mapping[str, Problem], responses: Sequence[Response]) -> Table:
    """Judge what each rule takes from each response; each distinct program is judged once."""
    found = [{how: extract(response.text, how) for how in RULES} for response in responses]
    submitted = [
        _submit(judge, problems.get(response.problem_id), set(programs.values()))
        for response, programs in zip(responses, found, strict=True)
    ]
    table: Table = defaultdict(lambda: {how: Count() for how in RULES})
    for response, programs, verdicts in zip(responses, found, submitted, strict=True):
        shows = shown(response.text)
        for how, code in programs.items():
            result = verdicts[code].result() if verdicts else None
            for model in (response.model, ALL_MODELS):
                table[model, shows][how].add(code, result)
    return dict(table)


def _submit(
    judge: Judge, problem: Problem | None, programs: set[str | None]
) -> "dict[str | None, Future[JudgeResult]]":
    return {code: judge.submit(problem, code) for code in programs} if problem else {}


def read_responses(path: Path) -> Iterator[Response]:
    """The responses of a file.

    Raises:
        InputError: a line without problem_id or response; it says which.
    """
    for number, record in records(path, []):
        if UNREADABLE in record:
            raise InputError(f"{path}:{number}: {record[UNREADABLE]}")
        try:
            text = response_in(record)
        except NoSubmission as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if not identity(record) or text is None:
            raise InputError(f"{path}:{number}: needs problem_id and, as text, response")
        yield Response(str(record.get("model", "model")), identity(record), text)


def lines(table: Table) -> Iterator[str]:
    """The table in Markdown: the share of responses with a program, and of accepted ones."""
    yield "| model | shows | responses | " + " | ".join(RULES) + " |"
    yield "|---|---|---|" + "---|" * len(RULES)
    for (model, shows), counts in sorted(table.items(), key=_order):
        cells = (_cell(count) for count in counts.values())
        total = counts[Extract.LONGEST].responses
        yield f"| {model} | {shows} | {total} | " + " | ".join(cells) + " |"


def _order(row: tuple[Group, dict[Extract, Count]]) -> tuple[bool, str, int]:
    model, shows = row[0]
    return model == ALL_MODELS, model, list(Shown).index(shows)


def _cell(count: Count) -> str:
    programs = f"{count.programs / count.responses:.1%}"
    return f"{programs}, {count.accepted / count.judged:.1%}" if count.judged else programs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status is 0 if all responses could be read."""
    options = _parser().parse_args(arguments)
    try:
        config = JudgeConfig.from_mapping(parse_settings(options.set))
        check_outputs({"--json": options.json}, (options.problems, options.responses))
        problems, _ = read_problems(options.problems, config)
        responses = list(read_responses(options.responses))
        with Judge(config) as judge:
            table = compare(judge, problems, responses)
    except (InputError, OutputError, JudgeConfigError, SandboxError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(table)))
    if options.json:
        options.json.write_text(json.dumps(_records(table), indent=1) + "\n")
    return 0


def _records(table: Table) -> list[dict[str, object]]:
    return [
        {"model": model, "shows": shows, "rule": how, **vars(count)}
        for (model, shows), counts in table.items()
        for how, count in counts.items()
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reward.extraction",
        description="Compare the rules that choose a response's program.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--problems", type=Path, required=True, metavar="P.jsonl")
    parser.add_argument("--responses", type=Path, required=True, metavar="R.jsonl")
    parser.add_argument("--json", type=Path, metavar="T.json", help="write the counts here as well")
    add_settings_option(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
