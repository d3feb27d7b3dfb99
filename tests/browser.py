"""Debian's chromium, driven through its DevTools protocol: what a test needs to use a page as a person does."""

import asyncio
import base64
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
PATIENCE = 90.0


class Page:
    """A page of the browser. Selectors are CSS, expressions JavaScript."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a DevTools command and return its result."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            answer = await self._socket.receive_json(timeout=PATIENCE)
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def wait_for(self, expression: str) -> None:
        """Wait until the expression is true; fail with the page's text where it does not become so."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not await self.evaluate(expression):
            assert asyncio.get_running_loop().time() < deadline, await self.evaluate("document.body.innerText")
            await asyncio.sleep(0.2)

    async def type_into(self, selector: str, text: str) -> None:
        """Put the focus on an element and type."""
        await self.evaluate(f"document.querySelector({selector!r}).focus()")
        await self.call("Input.insertText", text=text)

    async def screenshot(self, path: Path) -> None:
        """Save what is seen as a PNG."""
        path.write_bytes(base64.b64decode((await self.call("Page.captureScreenshot"))["data"]))


@contextlib.asynccontextmanager
async def open_page(url: str, *, width: int = 1600, height: int = 900) -> AsyncIterator[Page]:
    """Start a browser with an empty profile, go to `url`, and end the browser afterwards."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        options += [f"--window-size={width},{height}", f"--user-data-dir={profile}", "about:blank"]
        browser = await asyncio.create_subprocess_exec(
            CHROMIUM, *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            port = await _devtools_port(Path(profile))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    targets = await answer.json()
                address = next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    page = Page(socket)
                    await page.call("Page.navigate", url=url)
                    yield page
        finally:
            browser.terminate()
            await browser.wait()


async def _devtools_port(profile: Path) -> str:
    """The port that chromium chose, which it writes into its profile."""
    note = profile / "DevToolsActivePort"
    for _ in range(int(PATIENCE * 10)):
        if note.exists() and (lines := note.read_text("utf-8").splitlines()):
            return lines[0]
        await asyncio.sleep(0.1)
    raise AssertionError("chromium did not start")
