"""One sweep with a dashboard for all tests that watch one."""

import re
import secrets
from collections.abc import Iterator

import pytest

from raypatch.results import SweepPaths

from processes import PATIENCE, demo_words, said, start, wait_for
from watched import Watched


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A sweep that goes on for ever; the modules that use it come last, so that it disturbs no other."""
    folder = tmp_path_factory.mktemp("watched")
    token_file = folder / "token"
    token_file.write_text(secrets.token_hex(32), "utf-8")
    token_file.chmod(0o600)
    words = [*demo_words(folder, 8, 4, 2, epochs=100_000), "--dashboard"]
    sweep = start(words, folder, RAY_AUTH_TOKEN_PATH=str(token_file))
    try:
        address = re.compile(r"^Ray's dashboard: .*\n", re.M)
        line = wait_for(lambda: address.search(said(folder)), sweep)[0]
        assert str(token_file) in line
        url, token = line.split()[2], token_file.read_text("utf-8")
        assert url.startswith("http://127.0.0.1:")
        assert token not in line
        paths = SweepPaths(folder / "runs" / "demo")
        wait_for(lambda: any(trial.epochs.exists() for trial in paths.trial_folders()), sweep)
        yield Watched(paths.folder, url, token)
    finally:
        sweep.terminate()
        sweep.wait(PATIENCE)
