"""What README and docs say can be typed and followed: every link, and every `raypatch ...` command."""

import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer.main

from raypatch.cli.main import app
from raypatch.config import TrialConfig
from raypatch.study import load_study, shipped_studies

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TAKE_A_STUDY = ("run", "plan", "study", "spaces")


def _anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links(path: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in _links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in _anchors(target), f"{page.name}: no heading for {link}"


def _commands(path: Path) -> list[str]:
    """Every `raypatch ...` of a page: lines of shell blocks, continued ones joined, and code within sentences."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    lines: list[str] = []
    for language, block in re.findall(r"```(\w*)\n(.*?)```", text, flags=re.DOTALL):
        if language in ("bash", "sh", ""):
            lines += block.splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    found = []
    for line in lines:
        match = re.search(r"(?:^|(?<!--entrypoint)[\s/])raypatch ([a-z-].*)$", line.split(" #")[0].split(" > ")[0])
        if match:
            found.append(match[1])
    return found


def test_commands_are_found() -> None:
    assert len(_commands(ROOT / "README.md")) >= 9
    assert "report runs/breast" in _commands(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    for command in _commands(page):
        words = [word for word in shlex.split(command) if word not in ("…", "...", "|", "&")]
        _check(words, f"{page.name}: raypatch {command}")


def _check(words: list[str], place: str) -> None:
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0].startswith("-"):
            break
        assert words[0] in command.commands, f"{place}: there is no command {words[0]}"
        command = command.commands[words.pop(0)]
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    plain, settings = [], []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            plain.append(word)
            continue
        if name == "--help":
            continue
        assert name in options, f"{place}: there is no option {name}"
        if not options[name].is_flag and not equals:
            value = words.pop(0) if words else ""
        if name == "--set":
            settings.append(value.partition("=")[0])
    study = _study_of(command.name, plain, place)
    # dino.epochs is a field of a stage, start.ImageNet.weights one of a named level.
    for field in (name.rpartition(".")[2] for name in settings):
        assert field in [*TrialConfig.model_fields, *(study.grid if study else ())], f"{place}: no field {field}"


def _study_of(command: str, plain: list[str], place: str) -> Any:
    """The shipped study that the command names; None for a file or a placeholder such as SPACE or NAME."""
    if command not in TAKE_A_STUDY or not plain:
        return None
    name = plain[0]
    if name.isupper() or name.endswith((".yaml", ".npz")) or "$" in name:
        return None
    assert name in shipped_studies(), f"{place}: there is no study {name}"
    return load_study(name)


def test_the_readme_is_about_a_hundred_lines_and_its_study_is_one(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= 120
    (study,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(study)
    assert load_study(tmp_path / "mine.yaml").question == "Which patch size?"


def test_the_readme_lists_every_study() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in shipped_studies())


def test_the_picture_is_readable_on_light_and_dark() -> None:
    svg = (ROOT / "docs" / "breast.svg").read_text("utf-8")
    assert "prefers-color-scheme: dark" in svg
    assert "currentColor" in svg
    assert len(svg) < 40_000
    ElementTree.fromstring(svg)
