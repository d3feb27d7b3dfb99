"""Ray's dashboard of a sweep: who may open it, and what it shows."""

import base64
import contextlib
import urllib.error
from typing import Any

import pytest

from raypatch.sweep.executors.preflight import check_monitoring

from browser import Browser, find_chromium
from processes import wait_for
from watched import Watched

TEXT = "document.body?.innerText ?? ''"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "local", "dashboard": True}, "--dashboard goes with --executor ray, not local"),
        ({"executor": "local", "track": "mlflow"}, "--track goes with --executor ray, not local"),
        ({"track": "absent"}, "pip install 'raypatch[absent]'"),
    ],
)
def test_what_cannot_watch_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        check_monitoring(**({"executor": "ray", "dashboard": False, "track": "none"} | options))


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "~/.ray/auth_token"),
        ({"RAY_AUTH_TOKEN_PATH": "/x/t"}, "/x/t"),
        ({"RAY_AUTH_TOKEN": "s3cret"}, "$RAY_AUTH_TOKEN"),
    ],
)
def test_how_to_open_names_the_place_of_the_token(
    variables: dict[str, str], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raypatch.sweep.services.ray_setup import how_to_open

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = how_to_open("127.0.0.1:8265")
    assert "http://127.0.0.1:8265" in line
    assert place in line
    assert "s3cret" not in line


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
def test_dashboard_asks_for_the_token_and_lists_trials_by_name(watched: Watched) -> None:
    for token, code in ((None, 401), ("wrong", 403)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            watched.get("/logical/actors", token)
        assert refused.value.code == code
        refused.value.close()
    running = watched.running()
    actors = watched.get("/logical/actors", watched.token)["data"]["actors"].values()
    trials = {actor["reprName"] for actor in actors if actor["className"] == "RaypatchTrial"}
    assert running <= trials


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.xdist_group("ray")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(find_chromium() is None, reason="no chromium: apt-get install chromium")
def test_dashboard_in_a_browser(watched: Watched) -> None:
    with contextlib.closing(Browser()) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=1600, height=900, deviceScaleFactor=1, mobile=False)
        page.call("Page.navigate", url=f"{watched.url}/#/actors")
        wait_for(lambda: page.evaluate("document.querySelector('input[type=password]') !== null"))
        assert "images-p" not in page.evaluate(TEXT)
        page.evaluate("document.querySelector('input[type=password]').focus()")
        page.call("Input.insertText", text=watched.token)
        button = "[...document.querySelectorAll('button')].find(b => /submit/i.test(b.innerText))"
        wait_for(lambda: page.evaluate(f"{button}?.disabled === false"))
        page.evaluate(f"{button}?.click()")
        running = watched.running()
        wait_for(lambda: all(trial in page.evaluate(TEXT) for trial in running))
        picture = page.call("Page.captureScreenshot")["data"]
        (watched.folder / "actors.png").write_bytes(base64.b64decode(picture))
        assert "RaypatchTrial" in page.evaluate(TEXT)
