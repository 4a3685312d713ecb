"""Time and memory of the episode viewer on one long run.

    python scripts/bench/view.py RUN

`RUN` is a run folder, for instance one that `scripts/bench/report.py --generate-only` wrote. Starts
the viewer on an empty index, asks for the first page at once, follows the index until it holds the
whole run, and then asks for each kind of page, again and again. Memory is the viewer's own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

PAGES = {
    "first page": "/",
    "one step": "/?step=100",
    "page 900": "/?page=900",
    "by reward gain": "/?sort=gain",
    "by edit distance, row 25,000": "/?sort=edits&page=500",
    "three filters": "/?outcome=improved&verdict=wrong_answer&accepted=yes&sort=length&up=1",
    "a word in every episode": "/?q=total",
    "a phrase": "/?q=%22values+%3D%22",
    "a word in none": "/?q=nosuchword",
}
POLL_S = 1.0
ROUNDS = 20


def main() -> None:
    """Start, measure, print."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="RUN")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "recipe.analysis.view", str(options.run), "--port", "0"]
        started = time.monotonic()
        with subprocess.Popen(
            [*command, "--cache", cache], stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout
                line = server.stdout.readline()
                url = next(word for word in line.split() if word.startswith("http")).rstrip("/")
                print(f"{'':32}{'wall (s)':>10}{'CPU (s)':>10}")
                show("start", time.monotonic() - started, cpu_s(server.pid))
                print(f"{'memory, started':32}{rss_mib(server.pid):10.0f} MiB")
                measure(url, server.pid, Path(cache))
            finally:
                server.terminate()


def measure(url: str, pid: int, cache: Path) -> None:
    """Pages while the index grows, and when it is whole."""
    show("first page, index empty", *timed(url + "/", pid))
    started, cpu_before_s, worst = time.monotonic(), cpu_s(pid), (0.0, 0.0)
    while (state := json.load(urlopen(f"{url}/state")))["behind_bytes"] > 0:
        worst = max(worst, timed(url + "/", pid))
        time.sleep(POLL_S)
    whole = f"index of {state['episodes']:,} rollouts"
    show(whole, time.monotonic() - started, cpu_s(pid) - cpu_before_s)
    show("slowest first page meanwhile", worst[0])
    memory = {"index made": rss_mib(pid)}
    for name, address in PAGES.items():
        timed(url + address, pid)
        show(name, *timed(url + address, pid))
    memory["each page twice"] = rss_mib(pid)
    for _ in range(ROUNDS):
        for address in PAGES.values():
            timed(url + address, pid)
    memory[f"each page {ROUNDS} times more"] = rss_mib(pid)
    for name, mib in memory.items():
        print(f"{'memory, ' + name:32}{mib:10.0f} MiB")
    size = sum(path.stat().st_size for path in cache.glob("*.sqlite"))
    print(f"{'index on disk':32}{size / 2**20:10.0f} MiB")
    print(f"{'peak memory':32}{peak_mib(pid):10.0f} MiB")


def show(name: str, wall_s: float, used_s: float | None = None) -> None:
    """One line of the table."""
    used = "" if used_s is None else f"{used_s:10.2f}"
    print(f"{name:32}{wall_s:10.2f}{used}", flush=True)


def timed(address: str, pid: int) -> tuple[float, float]:
    """Seconds until the page is here, and of the viewer's CPU time meanwhile."""
    started, before_s = time.monotonic(), cpu_s(pid)
    with urlopen(address) as answer:
        answer.read()
    return time.monotonic() - started, cpu_s(pid) - before_s


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def peak_mib(pid: int) -> float:
    """The most memory that a process has held."""
    return status_mib(pid, "VmHWM")


def rss_mib(pid: int) -> float:
    """The memory that a process holds."""
    return status_mib(pid, "VmRSS")


def status_mib(pid: int, key: str) -> float:
    """A number of a process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


if __name__ == "__main__":
    main()
