"""A page looked at in headless Chromium, as a desktop and a phone show it, light and dark.

    python browse.py PAGE OUT [--whole]

Writes `OUT/<width>-<scheme>.png`, of the first window or the whole page, and prints a JSON list of
what was measured. Chromium is driven over its debugging pipe by commands of the Chrome DevTools
Protocol: no driver, no port, no library.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any

SILENCE_S = 120.0
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
LOOKS = [(1280, 900, "light"), (1280, 900, "dark"), (390, 844, "light"), (390, 844, "dark")]
MEASURES = """
(() => {
  const texts = [...document.querySelectorAll("figure svg text")];
  const cut = texts.filter(text => {
    const box = text.getBoundingClientRect();
    const room = text.ownerSVGElement.getBoundingClientRect();
    return box.left < room.left - 3 || box.right > room.right + 3
      || box.top < room.top - 3 || box.bottom > room.bottom + 3;
  });
  return {
    page_width: document.documentElement.scrollWidth,
    window_width: window.innerWidth,
    loaded: performance.getEntriesByType("resource").map(entry => entry.name),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    figure_ink: [...new Set(texts.map(text => getComputedStyle(text).fill))],
    figures: document.querySelectorAll("figure svg").length,
    smallest_text_px: Math.min(...texts.map(text => {
      const svg = text.ownerSVGElement;
      const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      return parseFloat(getComputedStyle(text).fontSize) * scale;
    })),
    cut: cut.map(text => text.textContent),
  };
})()
"""


def find_chromium() -> str | None:
    """The path of a Chromium, None where none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Look:
    """How a page is looked at: width and height in CSS pixels, and the reader's colour scheme."""

    width: int
    height: int
    scheme: str


class Browser:
    """A context with one blank tab; `profile` is a folder of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        self._commands = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._number = self._loads = 0
        self._session: str | None = None

    def __enter__(self) -> Browser:
        child_reads, self._out = os.pipe()
        self._in, child_writes = os.pipe()
        # Chromium reads its commands from descriptor 3 and answers on 4.
        shell = f'exec "$@" 3<&{child_reads} 4>&{child_writes}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *self._commands],
            pass_fds=(child_reads, child_writes),
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self._buffer = b""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.send("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait(timeout=20)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result; `RuntimeError` where Chromium refuses it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next answer or event; pages that have loaded are counted, whoever waits for what."""
        while b"\0" not in self._buffer:
            if not select([self._in], [], [], SILENCE_S)[0]:
                raise RuntimeError(f"Chromium said nothing for {SILENCE_S:.0f} s")
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium closed its pipe")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        content: dict[str, Any] = json.loads(message)
        self._loads += content.get("method") == "Page.loadEventFired"
        return content

    def open(self, page: Path | str, look: Look) -> None:
        """Load a file or an address and wait until it is laid out."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=look.width,
            height=look.height,
            deviceScaleFactor=1,
            mobile=look.width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": look.scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        address = page if isinstance(page, str) else page.resolve().as_uri()
        before = self._loads
        self.send("Page.navigate", url=address)
        self._wait_for_load(before)

    def _wait_for_load(self, before: int) -> None:
        """Wait until one page more is laid out; it may be so before the command is answered."""
        while self._loads == before:
            self._receive()

    def press(self, key: str, loads: bool = False) -> None:
        """Press and release a key; wait for the page that it leads to where `loads`."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9, "ArrowRight": 39, "ArrowLeft": 37}.get(key, 0)
        event, before = {"key": key, "windowsVirtualKeyCode": code}, self._loads
        self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **event)
        if loads:
            self._wait_for_load(before)

    def do(self, script: str) -> None:
        """Run a script that leads to another page, and wait for it."""
        before = self._loads
        self.send("Runtime.evaluate", expression=script)
        self._wait_for_load(before)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> bytes:
        """The page as PNG, written to `path` and returned; beyond the window where `whole`."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        content = base64.b64decode(shot)
        path.write_bytes(content)
        return content


def main() -> int:
    """Look, write, print; 1 where no Chromium is installed."""
    page, out = Path(sys.argv[1]), Path(sys.argv[2])
    program = find_chromium()
    if program is None:
        print(f"none of {', '.join(NAMES)} is installed", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    seen = []
    # Chromium's own processes may write to the profile for a moment after the browser has ended.
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with scratch as profile, Browser(program, Path(profile)) as browser:
        for look in (Look(*values) for values in LOOKS):
            browser.open(page, look)
            name = f"{look.width}-{look.scheme}.png"
            browser.screenshot(out / name, whole="--whole" in sys.argv)
            seen.append({"picture": name, **browser.value(MEASURES)})
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
