"""A study from its file, a changed one's run folder, and the settings of a command line."""

import difflib
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from raypatch.config import TrialConfig, explain_validation, field_facts
from raypatch.data.catalog import canonical_name
from raypatch.data.own import is_source
from raypatch.storage.own_files import OWN_SUFFIXES
from raypatch.study.names import LONGEST_NAME
from raypatch.study.published import read_tables
from raypatch.study.rules import as_list
from raypatch.study.study import Study


def default_run_name(study: Study, original: Study) -> str:
    """Return the study's name with what was changed from the original: `grid-dermamnist-epochs1`.

    Up to three datasets are named and the hyperparameters, so that a
    try-out does not stay in the folder of the real run. Other levels or
    seeds belong to the same run. A search is named by its datasets alone.
    """
    parts = [study.name]
    datasets = _dataset_names(study)
    if datasets != _dataset_names(original) and len(datasets) <= 3:
        parts += datasets
    if study.compared != original.compared:
        parts += ["by", *study.compared]
    for name, axis in study.grid.items():
        if name not in TrialConfig.model_fields or study.search is not None:
            continue
        is_recipe = field_facts(name).role == "hyperparameter"
        if is_recipe and axis != original.grid.get(name):
            parts.append(f"{name}{'_'.join(map(str, axis))}")
    for stage, fields in study.stages.items():
        for name, value in fields.items():
            is_recipe = field_facts(name).role == "hyperparameter"
            if is_recipe and value != original.stages.get(stage, {}).get(name):
                parts.append(f"{stage}.{name}{value}")
    text = re.sub(r"[^A-Za-z0-9_.-]", "_", "-".join(parts))
    if len(text) <= LONGEST_NAME:
        return text
    # The end is what tells two long names apart, so a cut one needs something in its place.
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{text[: LONGEST_NAME - 7]}-{digest}"


def _dataset_names(study: Study) -> list[str]:
    given = study.grid.get("dataset") or as_list(study.fixed.get("dataset", []))
    names = set()
    for name in map(str, given):
        # An own file is known by its stem here: it need not be there yet to name a folder.
        if name.endswith(".npz"):
            names.add(Path(name).stem)
        elif name in study.resolutions:
            names.add(name)
        elif Path(name).is_dir() or is_source(name):
            names.add(Path(name).resolve().stem)
        else:
            names.add(canonical_name(name))
    return sorted(names)


def shipped_studies() -> dict[str, Path]:
    """The studies that come with raypatch: name -> file."""
    folder = Path(str(resources.files("raypatch.search_spaces")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(source: str | Path | Mapping[str, Any] | Study) -> Study:
    """Return a shipped study by name, any by the path of its file,
    or one given as a mapping or made already.

    Raises ValueError with the near names or the wrong line.
    """
    if isinstance(source, Study):
        return source
    if isinstance(source, Mapping):
        return _check_study(source, "the study", Path())
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = _shipped_study(str(source))
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the search space {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    return _check_study(content, str(path), path.parent)


def _shipped_study(name: str) -> Path:
    shipped = shipped_studies()
    if name in shipped:
        return shipped[name]
    # Two slips that a list of near names would not explain.
    if name.endswith(".npz"):
        raise ValueError(
            f"{name} is a dataset, not a study; to compare patch sizes on it: raypatch run grid --dataset {name}"
        )
    if Path(name).is_dir():
        raise ValueError(
            f"{name} is a folder, not a study; to continue a run: raypatch resume {name}",
        )
    near = difflib.get_close_matches(name, shipped, n=3) or list(shipped)
    raise ValueError(
        f"unknown search space {name!r}: use {', '.join(near)} or the path of a .yaml file",
    )


def _check_study(content: Any, place: str, folder: Path) -> Study:
    """The study of a file's content. folder: where the paths of published tables start."""
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{place} must hold a mapping with the keys {', '.join(Study.model_fields)}",
        )
    try:
        study = Study.model_validate(read_tables(content, folder))
        # Asked of the study as given: one that the command line narrows may keep a single level.
        study.require_comparison()
    except ValidationError as error:
        raise ValueError(f"{place}: {explain_validation(error, Study)}") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return study


def parse_setting(text: str) -> tuple[str, list[Any]]:
    """Read one `--set field=value`; a list or a comma makes a grid axis.

    Raises ValueError for another form.
    """
    field, separator, value = text.partition("=")
    if not separator or not field.strip() or not value.strip():
        raise ValueError(f"--set {text!r} must be field=value, such as epochs=5 or lr=1e-4,1e-3")
    # Read as YAML, as a study's own file is: 1 is a number and true a truth value in both.
    listed = value if value.lstrip().startswith("[") else f"[{value}]"
    try:
        parsed = yaml.safe_load(listed)
    except yaml.YAMLError as error:
        raise ValueError(
            f"--set {text!r} cannot be read: a list is lr=1e-4,1e-3 or lr=[1e-4, 1e-3]",
        ) from error
    return field.strip(), parsed


def study_content(study: Study) -> dict[str, Any]:
    """Return a study as its file holds it, own files by their absolute paths: it runs again from anywhere."""
    content = study.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    absolute: dict[str, Any] = _with_absolute_paths(content)
    return absolute


def _with_absolute_paths(content: Any, field: str = "") -> Any:
    """Content whose values of fields that may name an own file are absolute where they are such a path."""
    if isinstance(content, dict):
        return {key: _with_absolute_paths(value, str(key)) for key, value in content.items()}
    if isinstance(content, list):
        return [_with_absolute_paths(value, field) for value in content]
    if isinstance(content, str) and field in OWN_SUFFIXES and content.endswith(OWN_SUFFIXES[field]):
        return str(Path(content).expanduser().resolve())
    return content
