"""What a command of the analysis leaves behind."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Written:
    """What was written. files: the page first. text: what to print, as Markdown."""

    folder: Path
    files: tuple[Path, ...]
    text: str
