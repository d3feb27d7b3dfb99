"""Which display fits where the output goes."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from raypatch.config import TrialConfig
from raypatch.machine.runtime import in_notebook
from raypatch.sweep.watch.display import LineDisplay, LiveDisplay
from raypatch.sweep.watch.notebook import NotebookDisplay


def make_display(
    todo: Sequence[TrialConfig],
    seconds: Mapping[str, float],
    *,
    done: int,
    side_by_side: int,
    varied: Callable[[TrialConfig], str],
) -> LiveDisplay | LineDisplay:
    """Return the display for a notebook, a terminal or a pipe; arguments as RunningSweep takes them."""
    if in_notebook():
        return NotebookDisplay(todo, seconds, done=done, side_by_side=side_by_side, varied=varied)
    # A pipe or a log keeps each redrawing: it gets a line per trial.
    kind = LiveDisplay if Console().is_terminal else LineDisplay
    return kind(todo, seconds, done=done, side_by_side=side_by_side, varied=varied)
