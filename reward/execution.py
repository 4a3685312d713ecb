"""Running a program once on one standard input, without a problem: what it wrote, how it ended."""

from dataclasses import dataclass

from reward.config import JudgeConfig
from reward.sandbox.client import ZygoteClient
from reward.sandbox.wire import End, Kind, Limits, Request

_WALL_FACTOR, _WALL_EXTRA_S = 2.0, 1.0
_BUSY_FACTOR = 8.0


@dataclass(frozen=True)
class RunRequest:
    """A program to run once, and its limits: CPU time, and memory beyond the interpreter's own."""

    code: str
    stdin: str
    timeout_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Execution:
    """What one run of a program showed."""

    end: End
    detail: str
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


def execute(zygote: ZygoteClient, run: RunRequest, config: JudgeConfig) -> Execution:
    """Run a program in a process of its own. Raises SandboxError if the zygote fails."""
    wall_s = _WALL_FACTOR * run.timeout_s + _WALL_EXTRA_S
    request = Request(
        kind=Kind.RUN,
        code=run.code.encode("utf-8", "surrogatepass"),
        inputs=[run.stdin.encode("utf-8", "surrogatepass")],
        limits=Limits(
            cpu_s=run.timeout_s,
            wall_s=wall_s,
            total_s=_BUSY_FACTOR * wall_s,
            memory_bytes=run.memory_bytes,
            output_bytes=config.output_bytes,
        ),
    )
    (result,) = zygote.run(request)
    return Execution(
        end=result.end,
        detail=result.detail,
        stdout=result.output.decode("utf-8", "replace"),
        stderr=result.stderr.decode("utf-8", "replace"),
        seconds=result.cpu_s,
    )
