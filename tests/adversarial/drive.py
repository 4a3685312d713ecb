"""Judges the programs given on stdin one after another and reports what each left behind.

Run by path, with any interpreter that has the project on its path, as any user:

    python drive.py < {"uid": 65534 | null, "mark": str, "settings": {...}, "problems": {...},
                       "cases": [{"name", "problem", "code"}, ...]}

Files that programs try to make have `mark` in their name; /tmp/victim_MARK is one to spoil.
Prints one JSON line per case: name, verdict, detail, and `residue`, a list of what is there after
the program that was not there before, plus whether the next, right program was judged right.
Standard library and `reward` only.
"""

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

REPO_ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(REPO_ROOT)

from reward.config import JudgeConfig  # noqa: E402, the path comes first
from reward.judge import Judge  # noqa: E402
from reward.problem import parse_problem  # noqa: E402

_PR_SET_CHILD_SUBREAPER = 36
_LOOKS, _PAUSE_S = 20, 0.01
_WATCHED = ("/tmp", "/var/tmp", "/dev/shm", "/")
_RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"


def main() -> None:
    order = json.load(sys.stdin)
    if order["uid"] is not None:
        os.setgroups([])
        os.setgid(order["uid"])
        os.setuid(order["uid"])
    # Whatever outlives its parents becomes our child, and is seen.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    problems = {name: parse_problem(record) for name, record in order["problems"].items()}
    mark = order["mark"]
    victim = _Victim(Path(f"/tmp/victim_{mark}"))
    with Judge(JudgeConfig.from_mapping(order["settings"])) as judge:
        judge.judge(problems["sum"], _RIGHT)
        before = _surroundings(mark)
        for case in order["cases"]:
            result = judge.judge(problems[case["problem"]], case["code"])
            after = judge.judge(problems["sum"], _RIGHT)
            residue = _settled_residue(before, mark) + victim.damage()
            before = _surroundings(mark)
            line = {
                "name": case["name"],
                "verdict": str(result.verdict),
                "detail": result.detail,
                "score": result.score,
                "level": result.level,
                "seconds": result.seconds,
                "next": str(after.verdict),
                "residue": residue,
            }
            print(json.dumps(line), flush=True)
    victim.path.unlink()


class _Victim:
    """A file that programs may try to change, where this user can make one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        path.write_text("intact")
        self.state = self._state()

    def _state(self) -> tuple[str, int, float]:
        status = self.path.stat()
        return self.path.read_text(), status.st_mode, status.st_mtime

    def damage(self) -> list[str]:
        try:
            return [] if self._state() == self.state else ["victim changed"]
        except OSError as error:
            return [f"victim: {error}"]


def _surroundings(mark: str) -> dict[str, Any]:
    """What programs could leave behind: processes, descriptors, files, shared memory."""
    children = _descendants(os.getpid())
    return {
        "processes": len(children),
        "descriptors": len(os.listdir("/proc/self/fd")) + sum(map(_descriptors, children)),
        "files": sorted(f"{d}/{n}" for d in _WATCHED for n in os.listdir(d) if n.startswith(mark)),
        "sysv": [_lines(f"/proc/sysvipc/{kind}") for kind in ("shm", "msg", "sem")],
    }


def _settled_residue(before: dict[str, Any], mark: str) -> list[str]:
    """What has stayed; a zygote closes its own copies of the files only after it has answered."""
    for _ in range(_LOOKS):
        residue = _residue(before, _surroundings(mark))
        if not residue:
            break
        time.sleep(_PAUSE_S)
    return residue


def _residue(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What there is more of than before; less is what the program before this one still held."""
    return [
        f"{key}: {before[key]} -> {after[key]}"
        for key in before
        if _is_more(before[key], after[key])
    ]


def _is_more(before: Any, after: Any) -> bool:
    if isinstance(before, int):
        return bool(after > before)
    if before and all(isinstance(count, int) for count in before):
        return any(now > then for then, now in zip(before, after, strict=True))
    return bool(set(after) - set(before))


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0  # a zygote of another user than root hides its own


def _lines(path: str) -> int:
    try:
        return len(Path(path).read_text().splitlines())
    except OSError:
        return 0


if __name__ == "__main__":
    main()
