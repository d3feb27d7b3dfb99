"""A headless Chromium, driven through its debugging pipe: opens a page, evaluates, and keeps what it asks and logs."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe"),
)


def find_chromium() -> str | None:
    """Path of Debian's chromium, None where it is not installed."""
    return shutil.which("chromium")


class BrowserError(Exception):
    """Chromium refused a command."""


class Browser:
    """One page. requests: addresses it asked for. messages: what it logged, errors included."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._buffer = b""
        self._number = 0
        ours, theirs = os.pipe(), os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; lift ours out of their way first.
        inlet, outlet = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[0], theirs[1]))
        self._write, self._read = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (ours[1], theirs[0]))
        for descriptor in (*ours, *theirs):
            os.close(descriptor)
        self._process = subprocess.Popen(
            [str(find_chromium()), *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: (os.dup2(inlet, 3), os.dup2(outlet, 4)),
            pass_fds=(3, 4),
        )
        os.close(inlet)
        os.close(outlet)
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; what else arrives meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "chromium went away"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(line)
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        elif event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.messages.append(json.dumps(event["params"]))
        elif event.get("method") == "Page.loadEventFired":
            self.loaded = True
        return event

    def open(self, page: Path, width: int, *, dark: bool) -> None:
        """Open a file at a width in pixels, in light or dark colours, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.loaded:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; asks again where the page was being left."""
        for _ in range(50):
            try:
                return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")
            except BrowserError as error:  # the page it asked is gone: its answer went with it
                gone = error
                time.sleep(0.2)
        raise gone

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()
