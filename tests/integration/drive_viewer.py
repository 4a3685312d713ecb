"""A reader goes through the episode viewer in headless Chromium, over any run folders.

    python drive_viewer.py RUN [RUN …] --out DIR [--grow]

Search, orders, filters, slider, keys, deep links, side by side, phone and dark are tried as they
are used, each is checked against what the page then shows, and `DIR` gets the pictures. Prints a
line for each with the seconds until the page was there. `--grow` appends an episode to the first
run's file, for the page to notice: give it copies.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

browse = importlib.import_module("browse")
Look = browse.Look
WAIT_S = 120.0
DESKTOP = Look(1280, 900, "light")
LOOKS = (DESKTOP, Look(1280, 900, "dark"), Look(390, 844, "light"), Look(390, 844, "dark"))
TITLES = "[...document.querySelectorAll('.column h2')].map(title => title.textContent)"
ROWS = "document.querySelectorAll('tr.row').length"
FOUND = "Number(document.getElementById('count').textContent.match(/[0-9,]+/)[0].replace(/,/g, ''))"


class Reader:
    """A browser on the viewer's pages, and what it checked."""

    def __init__(self, browser: Any, url: str, out: Path) -> None:
        self.browser, self.url, self.out = browser, url, out

    def open(self, address: str, look: Any = DESKTOP) -> None:
        self.browser.open(self.url + address, look)

    def value(self, expression: str) -> Any:
        return self.browser.value(expression)

    def cells(self, label: str) -> list[str]:
        """A column of the table."""
        cells = f"[...document.querySelectorAll('td[data-label=\"{label}\"]')]"
        return list(self.value(f"{cells}.map(cell => cell.textContent.trim())"))

    def choose(self, name: str, value: str) -> None:
        """Set a field and wait for the page that it leads to."""
        script = f"const f = document.querySelector('[name={name}]'); f.value = {json.dumps(value)}"
        self.browser.do(f"{script}; f.dispatchEvent(new Event('change', {{bubbles: true}}))")

    def options(self, name: str) -> list[str]:
        """What a field offers, but for nothing."""
        every = f"[...document.querySelectorAll('[name={name}] option')].map(o => o.value)"
        return [value for value in self.value(every) if value]

    def wait_for(self, expression: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self.value(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            time.sleep(0.1)

    def picture(self, name: str) -> None:
        """The page in every look, none of which may be wider than its window."""
        address = self.value("location.pathname + location.search")
        for look in LOOKS:
            self.open(address, look)
            self.browser.screenshot(self.out / f"{name}-{look.width}-{look.scheme}.png")
            assert self.value("document.documentElement.scrollWidth <= innerWidth"), (name, look)
        self.open(address)


def main() -> int:
    """Serve, read, print; 1 without a Chromium."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    program = browse.find_chromium()
    if program is None:
        print("no Chromium is installed", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        command = [sys.executable, "-m", "recipe.analysis.view", *map(str, options.runs)]
        command += ["--port", "0", "--cache", f"{scratch}/cache"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout
                found = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())
                assert found
                with browse.Browser(program, Path(scratch) / "profile") as browser:
                    read(Reader(browser, found.group(), options.out), options.grow, options.runs)
            finally:
                server.terminate()
    return 0


def read(reader: Reader, grow: bool, runs: list[Path]) -> None:
    """All that a reader does, in order."""
    timed("first page, while the index is made", lambda: reader.open("/"))
    reader.wait_for(
        "(window.s || fetch('/state').then(r => r.json()).then(s => window.s = s), "
        "window.s && (window.s.behind_bytes === 0 || (window.s = 0)))"
    )
    timed("first page, index whole", lambda: reader.open("/"))
    assert reader.value(ROWS) > 0
    for step in (orders, filters, slider, search, keys_and_links, side_by_side):
        timed(step.__name__.replace("_", " "), partial(step, reader))
    reader.open("/")
    timed("list in four looks", lambda: reader.picture("list"))
    reader.browser.do("document.querySelector('a.open').click()")
    timed("episode in four looks", lambda: reader.picture("episode"))
    if grow:
        timed("growing run", lambda: live(reader, runs[0]))


def timed(name: str, act: Callable[[], None]) -> None:
    """Do it, and say how long it took."""
    started = time.monotonic()
    act()
    print(f"{name:40}{time.monotonic() - started:8.2f} s", flush=True)


def orders(reader: Reader) -> None:
    """Every order is taken; by gain, the gains fall."""
    for order in reader.options("sort"):
        reader.choose("sort", order)
        assert reader.value(ROWS) > 0, order
    reader.choose("sort", "gain")
    gains = [float(text.replace("−", "-")) for text in reader.cells("gain") if text != "–"]
    assert gains == sorted(gains, reverse=True)


def filters(reader: Reader) -> None:
    """Each outcome shows its own rollouts alone, and all of them together are all."""
    reader.open("/")
    every = reader.value(FOUND)
    total = 0
    for outcome in reader.options("outcome"):
        reader.choose("outcome", outcome)
        assert len(set(reader.cells("outcome"))) == 1
        total += reader.value(FOUND)
    assert total == every, (total, every)


def slider(reader: Reader) -> None:
    """The keys and the slider go to a step, and every prompt shown is of it."""
    reader.open("/")
    reader.browser.press("]", loads=True)
    last = reader.value("document.querySelector('[name=step]').max")
    reader.choose("step", last)
    heads = reader.value("[...document.querySelectorAll('.group h2')].map(h => h.textContent)")
    assert heads and all(head.startswith(f"step {last} ·") for head in heads), heads


def search(reader: Reader) -> None:
    """A word of the first prompt finds rollouts whose page has it."""
    reader.open("/")
    prompt = reader.value("document.querySelector('.prompt').textContent")
    word = re.findall(r"[A-Za-z]{4,}", prompt)[0]
    reader.browser.press("/")
    for key in word:
        reader.browser.press(key)
    reader.browser.press("Enter", loads=True)
    assert reader.value(ROWS) > 0
    reader.browser.do("document.querySelector('a.open').click()")
    assert word.lower() in reader.value("document.body.textContent.toLowerCase()")


def keys_and_links(reader: Reader) -> None:
    """Opened, gone through and left by keys; the address alone brings the page back."""
    reader.open("/?accepted=yes&sort=gain")
    reader.browser.press("j")
    reader.browser.press("Enter", loads=True)
    reader.value("document.querySelectorAll('pre.tokens')[1].focus()")
    reader.browser.press("ArrowRight")
    assert reader.value("document.getElementById('token').textContent.length") > 0
    text = "document.querySelector('main').textContent"
    address, shown = reader.value("location.pathname + location.search"), reader.value(text)
    reader.open("/")
    reader.open(address)
    assert reader.value(text) == shown
    reader.value("document.activeElement.blur()")
    reader.browser.press("u", loads=True)
    assert {"accepted=yes", "sort=gain"} <= set(reader.value("location.search")[1:].split("&"))


def side_by_side(reader: Reader) -> None:
    """One problem at two steps, and in two runs if there are two."""
    reader.open("/")
    links = "[...document.querySelectorAll('h2 a')]"
    reader.browser.do(f"{links}.find(link => link.text === 'compare').click()")
    assert len(reader.value(TITLES)) == 2
    names = reader.options("right_run")
    if len(names) > 1:
        reader.choose("right_run", names[-1])
        assert reader.value(TITLES)[1].startswith(names[-1])
    reader.picture("compare")


def live(reader: Reader, run: Path) -> None:
    """An episode that comes while the page is open is announced, and shown when asked for."""
    reader.open("/")
    before = reader.value(FOUND)
    name = reader.value("document.getElementById('count').dataset.run")
    files = sorted(path for path in run.rglob("episodes.jsonl") if str(path.parent).endswith(name))
    with files[0].open("rb+") as file:
        line = file.read().splitlines()[-1]
        file.write(line + b"\n")
    reader.wait_for("document.querySelector('#more a') !== null")
    reader.browser.do("document.querySelector('#more a').click()")
    assert reader.value(FOUND) == before + 1


if __name__ == "__main__":
    raise SystemExit(main())
