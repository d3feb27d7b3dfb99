"""A sweep that runs with a dashboard while tests look at it."""

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypatch.results import SweepPaths


@dataclass
class Watched:
    """A running sweep: its run folder, the dashboard's address and the token that it asks for."""

    folder: Path
    url: str
    token: str

    def get(self, path: str, token: str | None) -> Any:
        """JSON from the dashboard."""
        request = urllib.request.Request(self.url + path)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def running(self) -> set[str]:
        """Trials that run now."""
        return {trial.folder.name for trial in SweepPaths(self.folder).trial_folders() if trial.lock.exists()}
