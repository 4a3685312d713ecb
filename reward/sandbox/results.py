"""From what the processes of a request left behind to how each test ended. Runs in the judge.

Outputs and the record page are the program's own, so no more is believed than lowers a verdict:
that a test ended well counts only if the process itself ended well, which the kernel says.
"""

import json
import signal
from dataclasses import dataclass, replace

from reward.sandbox.record import PAGE_BYTES, PHASE_COMPILING, PHASE_DONE, PHASE_RUNNING, Report
from reward.sandbox.wire import DIED, Death, End, Kind, Limits

# What a process may say of a test by the phase it says it is in.
_RECORDED = {
    PHASE_COMPILING: (End.NOT_RUN, End.COMPILE),
    PHASE_RUNNING: (End.NOT_RUN, End.OK, End.EXCEPTION, End.MEMORY, End.OUTPUT),
    PHASE_DONE: (End.NOT_RUN, End.OK, End.EXCEPTION, End.MEMORY, End.OUTPUT),
}
_OUTCOMES = (End.OK, End.EXCEPTION, End.MEMORY, End.PROBLEM)


@dataclass(frozen=True)
class RunResult:
    """How one test's run ended; `output` is the program's own.

    Not `believed` where the process ended badly later on: then nothing that it said of its other
    tests counts, and the test has to be run again.
    """

    end: End
    detail: str
    cpu_s: float
    output: bytes
    believed: bool = True
    stderr: bytes = b""


@dataclass(frozen=True)
class Score:
    """What a problem's own checker says of one output: a share of 0 to 1, or what went wrong."""

    value: float | None
    end: End
    detail: str


@dataclass(frozen=True)
class Remains:
    """What a request left: sizes of the outputs and of all else written, and the result file."""

    deaths: list[Death]
    output_bytes: list[int]
    sink_bytes: int
    content: bytes

    def report(self) -> Report:
        return Report(self.content[:PAGE_BYTES])

    def outputs(self, limit: int) -> list[bytes | None]:
        """Per test what it wrote; None if that is more than the limit."""
        found: list[bytes | None] = []
        start = PAGE_BYTES
        for size in self.output_bytes:
            if size >= limit:
                found.append(None)
                continue
            found.append(self.content[start : start + size])
            start += size
        return found


def results(kind: Kind, remains: Remains, limits: Limits) -> list[RunResult]:
    """Per test of a request, how it ended."""
    if not all(death.isolated for death in remains.deaths):
        status = remains.deaths[0].exit_code
        broken = RunResult(End.BROKEN, f"isolation failed, exit status {status}", 0.0, b"")
        return [broken] * (1 if kind == Kind.RUN else len(remains.output_bytes))
    if kind == Kind.CHECK:
        return [_checked(remains, limits)]
    if kind == Kind.RUN:
        return [_run_once(remains, limits)]
    return _ran(remains, limits)


def _ran(remains: Remains, limits: Limits) -> list[RunResult]:
    report, (death,) = remains.report(), remains.deaths
    outputs = remains.outputs(limits.output_bytes)
    alone = len(outputs) == 1
    found = []
    for position, output in enumerate(outputs):
        end, detail, believed = _ended(report, death, position, alone)
        flooded = output is None or (alone and remains.sink_bytes >= limits.output_bytes)
        if end != End.NOT_RUN and flooded:
            end, detail = End.OUTPUT, f"more than {limits.output_bytes} bytes written"
        shown = output if end == End.OK and output is not None else b""
        found.append(RunResult(end, detail, death.cpu_s, shown, believed))
    return found


def _run_once(remains: Remains, limits: Limits) -> RunResult:
    """A run that nothing is compared of: what it wrote is told however it ended."""
    output, stderr = remains.outputs(limits.output_bytes)
    (death,), outputs = remains.deaths, remains.output_bytes[:1]
    (result,) = _ran(replace(remains, output_bytes=outputs), limits)
    return replace(result, output=output or b"", stderr=stderr or b"", cpu_s=death.cpu_s)


def _ended(report: Report, death: Death, position: int, alone: bool) -> tuple[End, str, bool]:
    """How a test ended, why, and whether that is believed."""
    recorded, why = report.read(position)
    running = report.phase < PHASE_DONE and position == report.position
    if running and recorded == End.NOT_RUN:
        return *_explained(death, report.phase), True
    if recorded not in _RECORDED.get(report.phase, ()):
        return End.EXCEPTION, "", death.clean or alone  # forged
    if not death.clean and alone and recorded != End.COMPILE:
        return *_explained(death, PHASE_RUNNING), True
    return End(recorded), why, death.clean or recorded in (End.NOT_RUN, End.COMPILE)


def _explained(death: Death, phase: int) -> tuple[End, str]:
    """What a death says about the test that was running."""
    if phase <= PHASE_COMPILING:
        return End.COMPILE, "time limit" if death.over_time else _name(death.exit_code)
    if death.over_time:
        return End.TIME, ""
    if death.exit_code == 0:
        return End.OK, ""
    if death.exit_code == -signal.SIGKILL and not death.ended_by_us:
        return End.BROKEN, "killed from outside"
    return End.EXCEPTION, _name(death.exit_code)


def _checked(remains: Remains, limits: Limits) -> RunResult:
    test, candidate = remains.deaths
    (outcome,) = remains.outputs(limits.output_bytes)
    end, detail = _check_end(outcome or b"", remains.report(), test, candidate)
    output = detail.encode() if end == End.OK else b""
    return RunResult(end, detail, test.cpu_s + candidate.cpu_s, output)


def _check_end(outcome: bytes, report: Report, test: Death, candidate: Death) -> tuple[End, str]:
    recorded, why = report.read(0)
    end, detail = _outcome(outcome)
    if end == End.PROBLEM:
        return end, detail
    if report.phase <= PHASE_COMPILING:
        return End.COMPILE, why or _explained(candidate, PHASE_COMPILING)[1]
    if candidate.over_time or test.over_time:
        return End.TIME, ""
    if end is None:
        return _explained(test, PHASE_RUNNING)
    if end != End.EXCEPTION or detail != DIED:
        return end, detail
    if recorded in (End.EXCEPTION, End.MEMORY):
        return End(recorded), why
    end, detail = _explained(candidate, PHASE_RUNNING)
    return (End.EXCEPTION if end == End.OK else end), detail


def _outcome(content: bytes) -> tuple[End | None, str]:
    """What the checker wrote; None if it wrote nothing."""
    if not content:
        return None, ""
    number, detail = json.loads(content)
    return (End(number) if number in _OUTCOMES else End.BROKEN), str(detail)


def scores(remains: Remains, limits: Limits, count: int) -> list[Score]:
    """What a problem's own checker says of `count` cases."""
    (death,), (output,) = remains.deaths, remains.outputs(limits.output_bytes)
    if not death.isolated:
        return [Score(None, End.BROKEN, "isolation failed")] * count
    if not death.clean or not output:
        end, detail = _explained(death, PHASE_RUNNING)
        end = end if end == End.BROKEN else End.PROBLEM
        reason = "time limit" if death.over_time else detail or "it wrote nothing"
        return [Score(None, end, f"the checker ended: {reason}")] * count
    found = json.loads(output)
    return [
        Score(None, End.PROBLEM, one) if isinstance(one, str) else Score(float(one), End.OK, "")
        for one in found
    ]


def _name(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
