"""A search space: one YAML file of fixed fields, grid axes and when-rules, resolved to explicit trials."""

import difflib
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from raypatch.config import OWN_FILE, TrialConfig, explain_validation, make_config, own_file_id
from raypatch.data.catalog import DatasetInfo, Task, canonical_name
from raypatch.search_settings import Search, SearchedField, SearchSettings

FACTS: Mapping[str, tuple[Any, ...]] = {"dimensions": (2, 3), "task": get_args(Task), "channels": (1, 3)}
"""What a when-rule may ask beside the fields of TrialConfig: facts of the dataset."""

_DEFAULTS = {name: field.default for name, field in TrialConfig.model_fields.items() if not field.is_required()}
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def check_name(name: str) -> str:
    """Return a run name that is safe as a folder name. Raises ValueError for path characters."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ValueError(
            f"name {name!r} must be letters, digits, '.', '_', '-', at most 64, starting with one of the first two"
        )
    return name


def _typed(field: str, value: Any) -> Any:
    """`value` as the type of its field, so that "4" from a command line equals 4; unchanged where that fails."""
    try:
        return _adapter(field).validate_python(value)
    except ValidationError:
        return value


@functools.cache
def _adapter(field: str) -> TypeAdapter[Any]:
    known: Any = TrialConfig.model_fields[field].annotation if field in TrialConfig.model_fields else Any
    return TypeAdapter(known)


class WhenRule(BaseModel):
    """What follows where a condition holds: `{if: {dimensions: 3}, set: {lr: 1.0e-5}}`, or `skip: true`."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    condition: dict[str, Any] = Field(alias="if", description="Field or dataset fact -> value or list of values.")
    values: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="TrialConfig fields that the condition sets."
    )
    skip: bool = Field(False, description="Leave out the trials for which the condition holds.")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether every condition is met by `values`, fields and facts together."""
        return all(
            _typed(key, values.get(key)) in [_typed(key, each) for each in (want if isinstance(want, list) else [want])]
            for key, want in self.condition.items()
        )


class SearchSpace(BaseModel):
    """Which trials a sweep has. A grid axis beats a when-rule, a when-rule beats a fixed field, that the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(check_name)] = Field(description="Default name of the run folder.")
    description: str = Field("", description="What the sweep is for, one sentence.")
    fixed: dict[str, Any] = Field(default_factory=dict, description="TrialConfig fields that every trial shares.")
    grid: dict[str, list[Any]] = Field(
        default_factory=dict, description="TrialConfig fields with a list of values each."
    )
    when: tuple[WhenRule, ...] = Field((), description="Rules that set fields, such as the recipe of 2D or 3D data.")
    search: SearchSettings | None = Field(None, description="Fields to search at each point of the grid, and how.")

    @model_validator(mode="after")
    def _only_known_fields(self) -> Self:
        known = set(TrialConfig.model_fields)
        conditions = [(key, known | set(FACTS)) for rule in self.when for key in rule.condition]
        settings = [
            (key, known) for values in (self.fixed, self.grid, *(rule.values for rule in self.when)) for key in values
        ]
        for key, allowed in conditions + settings:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, n=3)
                raise ValueError(f"unknown field {key!r}" + (f"; did you mean {', '.join(near)}?" if near else ""))
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"grid axis {key!r} is empty; give at least one value or remove it")
        if both := set(self.fixed) & set(self.grid):
            raise ValueError(f"{', '.join(sorted(both))}: both fixed and a grid axis; keep one")
        searched = set(self.search.fields) if self.search else set()
        if both := searched & {*self.fixed, *self.grid, *(key for rule in self.when for key in rule.condition)}:
            raise ValueError(f"{', '.join(sorted(both))}: searched, so it cannot be given or asked for by a when-rule")
        return self

    def override(self, values: Mapping[str, Sequence[Any]]) -> "SearchSpace":
        """Return the space with each field of `values` replaced by an axis of these values, whatever set it before."""
        fixed = {key: value for key, value in self.fixed.items() if key not in values}
        grid = self.grid | {key: list(axis) for key, axis in values.items()}
        if self.search is None:
            return self._changed(fixed=fixed, grid=grid)
        search = self.search.model_dump(by_alias=True, exclude_none=True)
        search["fields"] = {key: field for key, field in search["fields"].items() if key not in values}
        return self._changed(fixed=fixed, grid=grid, search=search)

    def override_search(self, **settings: Any) -> "SearchSpace":
        """Return the space with these settings of its search. Raises ValueError for a space without search."""
        if self.search is None:
            raise ValueError(f"the search space {self.name!r} has no `search:` section; use --space learning_rate")
        return self._changed(search=self.search.model_dump(by_alias=True, exclude_none=True) | settings)

    def search_patch_sizes(self) -> "SearchSpace":
        """Return the space with the patch size searched: the axis is one choice within each dataset."""
        assert self.search is not None
        sizes = self.grid.get("patch_size", [self.fixed.get("patch_size")])
        fields = self.search.model_dump(by_alias=True, exclude_none=True)["fields"]
        fixed, grid = ({k: v for k, v in part.items() if k != "patch_size"} for part in (self.fixed, self.grid))
        return self._changed(fixed=fixed, grid=grid).override_search(fields={**fields, "patch_size": {"choice": sizes}})

    def add_rules(self, rules: Sequence[WhenRule]) -> "SearchSpace":
        """Return the space with further when-rules; where two set a field, the last one that holds wins."""
        return self._changed(when=[rule.model_dump(by_alias=True) for rule in (*self.when, *rules)])

    def _changed(self, **parts: Any) -> "SearchSpace":
        try:
            return SearchSpace.model_validate(self.model_dump(by_alias=True, exclude_none=True) | parts)
        except ValidationError as error:
            raise ValueError(explain_validation(error, SearchSpace)) from error


def default_run_name(space: SearchSpace) -> str:
    """The space's name and, up to three, its datasets: `learning_rate-dermamnist`."""
    given = map(str, space.grid.get("dataset", [space.fixed[key] for key in ("dataset",) if key in space.fixed]))
    datasets = sorted({Path(name).stem if name.endswith(".npz") else canonical_name(name) for name in given})
    return "-".join([space.name, *datasets]) if len(datasets) <= 3 else space.name


def shipped_spaces() -> dict[str, Path]:
    """The search spaces that come with raypatch: name -> file."""
    folder = Path(str(resources.files("raypatch.search_spaces")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_space(name_or_path: str) -> SearchSpace:
    """Load a shipped space by name or any by path. Raises ValueError with the near names or the wrong line."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        shipped = shipped_spaces()
        if name_or_path not in shipped:
            near = difflib.get_close_matches(name_or_path, shipped, n=3) or list(shipped)
            raise ValueError(
                f"unknown search space {name_or_path!r}: use {', '.join(near)} or the path of a .yaml file"
            )
        path = shipped[name_or_path]
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the search space {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping with the keys {', '.join(SearchSpace.model_fields)}")
    try:
        return SearchSpace.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain_validation(error, SearchSpace)}") from error


def parse_setting(text: str) -> tuple[str, list[Any]]:
    """Read one `--set field=value`; a list or a comma makes a grid axis. Raises ValueError for another form."""
    field, separator, value = text.partition("=")
    if not separator or not field.strip() or not value.strip():
        raise ValueError(f"--set {text!r} must be field=value, such as epochs=5 or lr=1e-4,1e-3")
    try:
        parsed = yaml.safe_load(value if value.lstrip().startswith("[") else f"[{value}]")
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text!r} cannot be read: a list is lr=1e-4,1e-3 or lr=[1e-4, 1e-3]") from error
    return field.strip(), parsed


def resolve_trials(space: SearchSpace) -> tuple[list[TrialConfig], dict[str, Path]]:
    """Resolve a space to its trials, without repeats, and to the own files that they name by content.

    Raises ValueError for a wrong field, value or file.
    """
    files: dict[str, Path] = {}
    infos: dict[str, DatasetInfo] = {}
    trials: dict[str, TrialConfig] = {}
    rules = [rule.model_copy(update={"condition": _canonical(rule.condition, files)}) for rule in space.when]
    for point in itertools.product(*space.grid.values()):
        axes = dict(zip(space.grid, point, strict=True))
        values = _by_content({**space.fixed, **axes}, files)
        if "dataset" not in values:
            raise ValueError(f"the search space {space.name!r} names no dataset; give --dataset")
        info = _describe(str(values["dataset"]), files, infos)
        values["dataset"] = info.name
        facts = {"dimensions": info.dimensions, "task": info.task, "channels": info.channels}
        skipped = False
        for rule in rules:
            if rule.holds(_DEFAULTS | {"image_size": info.size} | values | facts):
                skipped |= rule.skip
                values |= {key: value for key, value in _by_content(rule.values, files).items() if key not in axes}
        if skipped:
            continue
        values.setdefault("image_size", info.size)
        config = make_config(values)
        check_fit(config, info)
        trials[config.trial_id()] = config
    if not trials:
        raise ValueError(f"the search space {space.name!r} skips all of these trials; see its when-rules")
    used = {name for config in trials.values() for name in (config.dataset, config.weights)}
    return list(trials.values()), {name: path for name, path in files.items() if name in used}


def resolve_search(space: SearchSpace) -> tuple[Search, dict[str, Path]]:
    """Resolve a space with a search to its groups, and to own files as `resolve_trials` does.

    Raises ValueError for a wrong field, value, range or file.
    """
    assert space.search is not None
    settings = space.search
    files: dict[str, Path] = {}
    ends = {name: [*field.ends] for name, field in settings.fields.items()}
    for name, values in ends.items():
        others = {other: [field[0]] for other, field in ends.items() if other != name}
        trials, found = resolve_trials(space.model_copy(update={"search": None}).override(others | {name: values}))
        files |= found
        if settings.fields[name].choice:
            canonical = tuple(dict.fromkeys(getattr(config, name) for config in trials))
            fields = settings.fields | {name: SearchedField.model_validate({"choice": canonical})}
            settings = settings.model_copy(update={"fields": fields})
    groups, _ = resolve_trials(
        space.model_copy(update={"search": None}).override({name: values[:1] for name, values in ends.items()})
    )
    for group in groups:
        if settings.grace_epochs > group.epochs:
            raise ValueError(f"grace_epochs={settings.grace_epochs} must be at most epochs={group.epochs}")
    if len(seeds := {group.seed for group in groups}) > 1:
        raise ValueError(f"a search has one seed, not {', '.join(map(str, sorted(seeds)))}: a lucky one is no recipe")
    return Search(settings=settings, groups=tuple(groups)), files


def check_fit(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise ValueError where a config asks for what its dataset cannot give."""
    if info.dimensions == 2 and config.inflation != "repeat":
        raise ValueError(f"inflation={config.inflation} is for volumes; {info.name} has 2D images: leave it out")
    if config.resize == "pad" and config.image_size < info.size:
        raise ValueError(
            f"resize=pad needs image_size of at least {info.size}, the size of {info.name}, not {config.image_size}"
        )


def _canonical(condition: Mapping[str, Any], files: dict[str, Path]) -> dict[str, list[Any]]:
    """A when-rule's condition with datasets and own files as a TrialConfig names them.

    Raises ValueError for a dataset or a fact that there is not: such a rule would never hold.
    """
    found = {}
    for key, want in condition.items():
        values = [_by_content({key: each}, files)[key] for each in (want if isinstance(want, list) else [want])]
        if key == "dataset":
            values = [each if OWN_FILE.fullmatch(str(each)) else canonical_name(str(each)) for each in values]
        for each in values:
            if key in FACTS and each not in FACTS[key]:
                raise ValueError(f"when-rule: {key} is one of {', '.join(map(str, FACTS[key]))}, never {each!r}")
        found[key] = values
    return found


def _by_content(values: Mapping[str, Any], files: dict[str, Path]) -> dict[str, Any]:
    """Replace the path of an own dataset or weights file by its content's name and note where it lies."""
    named = dict(values)
    for field, suffixes in (("dataset", (".npz",)), ("weights", _WEIGHT_SUFFIXES)):
        value = named.get(field)
        if isinstance(value, str) and not OWN_FILE.fullmatch(value) and value.endswith(suffixes):
            path = Path(value).expanduser().resolve()
            known = next((name for name, place in files.items() if place == path), None)
            named[field] = known or own_file_id(path)
            files[named[field]] = path
    return named


def _describe(dataset: str, files: Mapping[str, Path], infos: dict[str, DatasetInfo]) -> DatasetInfo:
    from raypatch.data.source import describe

    if dataset not in infos:
        infos[dataset] = describe(dataset, data_dir=None, files=files)
    return infos[dataset]
