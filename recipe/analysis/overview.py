"""What the report says of the runs themselves: a title, one line of state, and a table."""

from collections.abc import Sequence
from datetime import datetime

from recipe.analysis.acting import weight_of
from recipe.analysis.live import has_finished
from recipe.analysis.names import cut, label_of
from recipe.analysis.runs import Run, group_by_arm
from recipe.analysis.tables import ABSENT, Table


def title_of(runs: Sequence[Run]) -> str:
    """The settings name the report."""
    settings = sorted({run.setting for run in runs if run.setting})
    return f"Run report: {cut(', '.join(settings))}" if settings else "Run report"


def state_of(runs: Sequence[Run], now: datetime) -> str:
    """How far the runs are, in one line."""
    arms = len(group_by_arm(runs))
    finished = sum(map(has_finished, runs))
    commits = sorted({str(run.info["commit"]) for run in runs if run.info.get("commit")})
    parts = [
        _count(len(runs), "run"),
        _count(arms, "arm"),
        "all finished" if finished == len(runs) else f"{finished} finished",
        *([f"commit {', '.join(commits)}"] if commits else []),
        f"written {now:%Y-%m-%d %H:%M} UTC",
    ]
    return " · ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def runs_table(runs: Sequence[Run]) -> Table:
    """One line a run."""
    header = ("arm", "setting", "seed", "weight", "steps", "state", "episodes", "commit", "started")
    rows = [_row(run) for members in group_by_arm(runs).values() for run in members]
    return Table((*header, "folder"), tuple(rows))


def _row(run: Run) -> tuple[str, ...]:
    last = run.steps[-1] if run.steps else 0
    return (
        label_of(run.arm),
        run.setting or ABSENT,
        _text(run.seed),
        weight_of(run) or ABSENT,
        f"{last} of {run.total_steps}" if run.total_steps is not None else f"{last}",
        "finished" if has_finished(run) else "not finished",
        str(len(run.episodes)),
        _text(run.info.get("commit")),
        _text(run.info.get("started_at")),
        str(run.path),
    )


def _text(value: object) -> str:
    return ABSENT if value is None else str(value)
