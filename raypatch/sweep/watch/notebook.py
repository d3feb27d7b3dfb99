"""What a sweep shows in a notebook: one output that is replaced in place."""

import io
import time
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from raypatch.results import EpochRow, TrialResult
from raypatch.sweep.watch.display import LiveDisplay

REDRAW_SECONDS = 0.5
WIDTH = 100
SHOWN_RESULTS = 8


class NotebookDisplay(LiveDisplay):
    """The live display as one HTML output, redrawn when something happens, at most twice a second."""

    def __enter__(self) -> "NotebookDisplay":
        from IPython.display import display

        self._drawn = time.monotonic()
        # IPython does not say its types.
        show: Any = display
        self._handle: Any = show(self._as_mime(), raw=True, display_id=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._redraw(now=True)

    def started(self, trial_id: str) -> None:
        super().started(trial_id)
        self._redraw()

    def epoch(self, trial_id: str, row: EpochRow) -> None:
        super().epoch(trial_id, row)
        self._redraw()

    def finished(self, result: TrialResult) -> None:
        # Not as LiveDisplay does, which prints a line above: here results stand beneath.
        self.running.pop(result.trial_id, None)
        self.results[result.trial_id] = result
        self._redraw(now=True)

    def _redraw(self, *, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn >= REDRAW_SECONDS:
            self._drawn = time.monotonic()
            self._handle.update(self._as_mime(), raw=True)

    def _as_mime(self) -> dict[str, str]:
        """The display as text and as HTML, the last results beneath it."""
        last_results = list(self.results.values())[-SHOWN_RESULTS:]
        lines = [Text(self.describe(result)) for result in last_results]
        # The console writes nowhere: it records, and is then exported in two formats.
        console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False)
        console.print(Group(self.render(), *lines))
        page = console.export_html(inline_styles=True, clear=False, code_format="<pre>{code}</pre>")
        return {"text/html": page, "text/plain": console.export_text()}
