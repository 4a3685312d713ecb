"""A headless Chromium, driven over its debugging pipe: no driver, no port, no library.

Commands are those of the Chrome DevTools Protocol.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        self._number = 0
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
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium closed its pipe")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, look: Look) -> None:
        """Load a file and wait until it is laid out."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=look.width,
            height=look.height,
            deviceScaleFactor=1,
            mobile=look.width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": look.scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=page.resolve().as_uri())
        while self._receive().get("method") != "Page.loadEventFired":
            pass

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
