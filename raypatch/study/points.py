"""The points of a study's grid: each a trial, with the rules applied and own files known by content."""

import functools
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from raypatch.config import TrialConfig, make_config
from raypatch.data.catalog import DatasetInfo, canonical_name
from raypatch.data.own import is_source
from raypatch.data.source import describe
from raypatch.factors import Factor, factor_of_axis, factor_of_field
from raypatch.storage.own_files import OWN_FILE, OWN_SET, OWN_SUFFIXES, own_file_id
from raypatch.storage.progress import ProgressLines
from raypatch.study import FACTS, Study, WhenRule, as_list, typed_value
from raypatch.study.fit import check_fit, require_one_length
from raypatch.study.resolutions import files_in_folder, name_set
from raypatch.study.stages import stage_name, stage_values
from raypatch.tasks import find_task, reads_masks
from raypatch.trial_fields.resolution import resolutions_of, source_name


class StudyPoints:
    """The points of a study's grid, with what was found about datasets and own files on the way."""

    def __init__(self, study: Study) -> None:
        self.study = study
        # Own files by their content's name, and back: a file is read once however often it is named.
        self._files: dict[str, Path] = {}
        self._identities: dict[Path, str] = {}
        self._sources: dict[str, Path] = {}
        self._sets: dict[str, str] = {}
        self._infos: dict[tuple[str, bool], DatasetInfo] = {}
        # By trial id, those that make weights.
        self.stages: dict[str, TrialConfig] = {}
        self._rules = [self._canonical_rule(rule) for rule in study.when]

    def points(self) -> Iterator[tuple[TrialConfig, dict[str, str]]]:
        """Yield each trial that no rule skips, and by axis of named levels the level's name."""
        axes = list(self.study.grid)
        for point in itertools.product(*self.study.grid.values()):
            axis_values: dict[str, Any] = {}
            names: dict[str, str] = {}
            for name, value in zip(axes, point, strict=True):
                axis = self.study.grid[name]
                if isinstance(axis, dict):
                    axis_values |= axis[value]
                    names[name] = value
                else:
                    axis_values[name] = value
            config = self._config(axis_values)
            if config is not None:
                yield config, names

    def factor(self, name: str, configs: Sequence[TrialConfig]) -> Factor:
        """Return the factor `name` of these trials.

        Raises ValueError for a baseline that is no level, or of which no trial is left.
        """
        axis = self.study.grid.get(name)
        if isinstance(axis, dict):
            by_content = {level: self._by_content(fields) for level, fields in axis.items()}
            factor = factor_of_axis(name, by_content)
        else:
            factor = factor_of_field(name, [getattr(config, name) for config in configs])
        baseline = self.study.baseline.get(name)
        if baseline is None:
            return factor
        level = str(baseline) if isinstance(axis, dict) else self._level_of_value(factor, baseline)
        if level in factor.names:
            return factor.model_copy(update={"baseline": level})
        if level in map(str, axis or ()):
            raise ValueError(
                f"baseline: a when-rule skips every trial of {name} {baseline}; name another level,"
                f" one of {', '.join(factor.names)}, or change the rule",
            )
        raise ValueError(
            f"baseline: {baseline} is no level of {name}; it has {', '.join(factor.names)}",
        )

    def files_of(self, configs: Sequence[TrialConfig]) -> dict[str, Path]:
        """Where the own files lie that these trials name."""
        used: set[str] = set()
        for config in configs:
            used |= {config.source, config.weights}
        lying = {}
        for name, path in self._files.items():
            if name in used:
                lying[name] = path
        return lying

    def _level_of_value(self, factor: Factor, value: Any) -> str:
        named = self._by_content({factor.name: value})
        wanted = typed_value(factor.name, named[factor.name])
        for level in factor.levels:
            if level.fields[factor.name] == wanted:
                return level.name
        return str(value)

    def _config(self, axis_values: Mapping[str, Any]) -> TrialConfig | None:
        """The trial at a point of the grid; None where a rule skips it."""
        values = self._by_content({**self.study.fixed, **axis_values})
        if "dataset" not in values:
            raise ValueError(
                f"the search space {self.study.name!r} names no dataset; give --dataset",
            )
        dataset = values["dataset"] = self._canonical_dataset(str(values["dataset"]))
        # What a rule may ask is the same at every resolution, which a rule may set.
        info = self._describe(next(iter(resolutions_of(dataset).values()), dataset))
        if info.task == "segmentation":
            # Masks alone leave no other task.
            values.setdefault("task", info.task)
        skipped = self._apply_rules(values, axis_values, info)
        if skipped:
            return None
        require_one_length(values)
        resolution = typed_value("resolution", values.get("resolution"))
        masks = reads_masks(values.get("task"))
        info = self._describe(source_name(dataset, resolution), masks=masks)
        values.setdefault("image_size", info.size)
        if masks:
            # The loss goes up long before the masks get worse.
            values.setdefault("selection", f"val_{find_task(values['task']).default_metric}")
        self._name_stage(values, info)
        config = make_config(values)
        check_fit(config, info)
        return config

    def _name_stage(self, values: dict[str, Any], info: DatasetInfo) -> None:
        """Let weights of a stage name the trial that makes them, which is noted."""
        name = stage_name(values.get("weights"), self.study.stages)
        if name is None:
            return
        own = stage_values(self._by_content(self.study.stages[name]), values)
        # A stage may start from another one.
        self._name_stage(own, info)
        stage = make_config(own)
        check_fit(stage, info)
        self.stages[stage.trial_id()] = stage
        values["weights"] = f"stage:{name}@{stage.trial_id()}"

    def _apply_rules(self, values: dict[str, Any], axis_values: Mapping[str, Any], info: DatasetInfo) -> bool:
        """Set in `values` what the rules that hold say; return whether one of them skips the trial."""
        facts = {"dimensions": info.dimensions, "task": info.task, "channels": info.channels}
        otherwise = _default_values() | {"image_size": info.size}
        skipped = False
        for rule in self._rules:
            # A rule sees what earlier ones have set, so their order in the study counts.
            if not rule.holds(otherwise | values | facts):
                continue
            skipped = skipped or rule.skip
            for field, value in self._by_content(rule.values).items():
                # What is compared is never overruled, or two levels would become one trial.
                if field not in axis_values:
                    values[field] = value
        return skipped

    def _canonical_rule(self, rule: WhenRule) -> WhenRule:
        """A when-rule with datasets and own files as a TrialConfig names them.

        Raises ValueError for a dataset or a fact that there is not: such a rule would never hold.
        """
        condition: dict[str, list[Any]] = {}
        for key, wanted in rule.condition.items():
            condition[key] = [self._canonical_value(key, value) for value in as_list(wanted)]
        return rule.model_copy(update={"condition": condition})

    def _canonical_value(self, key: str, value: Any) -> Any:
        """One value that a rule asks for, as a TrialConfig has it."""
        if key in FACTS and value not in FACTS[key]:
            known = ", ".join(map(str, FACTS[key]))
            raise ValueError(f"when-rule: {key} is one of {known}, never {value!r}")
        named = self._by_content({key: value})[key]
        return self._canonical_dataset(str(named)) if key == "dataset" else named

    def _canonical_dataset(self, name: str) -> str:
        is_own = OWN_FILE.fullmatch(name) or OWN_SET.fullmatch(name)
        return name if is_own else canonical_name(name)

    def _by_content(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the path of an own file by its content's name and note where it lies."""
        named = dict(values)
        if "dataset" in named:
            named["dataset"] = self._name_set(named["dataset"])
        for field, suffixes in OWN_SUFFIXES.items():
            value = named.get(field)
            if not isinstance(value, str) or OWN_FILE.fullmatch(value):
                continue
            if field == "dataset" and is_source(value):
                named[field] = self._identify(self._packed(value))
            elif value.endswith(suffixes):
                named[field] = self._identify(Path(value).expanduser().resolve())
        return named

    def _name_set(self, dataset: Any) -> Any:
        """The name by content of an own dataset of several sizes: of the study, or a folder; others stay."""
        name = str(dataset)
        if name in self._sets:
            return self._sets[name]
        files = self.study.resolutions.get(name, {})
        folder = Path(name).expanduser()
        if not files and name.strip() and folder.is_dir():
            files = files_in_folder(folder)
            name = folder.resolve().name
        if not files:
            return dataset
        resolved = {edge: Path(path).expanduser().resolve() for edge, path in files.items()}
        identity, lying = name_set(name, resolved)
        self._files |= lying
        self._sets[str(dataset)] = identity
        return identity

    def _identify(self, path: Path) -> str:
        """The name of an own file by its content."""
        if path not in self._identities:
            self._identities[path] = own_file_id(path)
        identity = self._identities[path]
        self._files[identity] = path
        return identity

    def _packed(self, source: str) -> Path:
        """The .npz of own images that are no .npz yet."""
        if source not in self._sources:
            # It loads torch, which a study of named datasets does not need.
            from raypatch.data.pack import packed

            # To stderr: what a command answers may be read by a script.
            say = functools.partial(print, file=sys.stderr, flush=True)
            self._sources[source] = packed(Path(source).expanduser(), say=say, on_progress=ProgressLines(say))
        return self._sources[source]

    def _describe(self, dataset: str, *, masks: bool = False) -> DatasetInfo:
        if (dataset, masks) not in self._infos:
            self._infos[dataset, masks] = describe(dataset, masks=masks, data_dir=None, files=self._files)
        return self._infos[dataset, masks]


@functools.cache
def _default_values() -> dict[str, Any]:
    """The fields with a default: a rule may ask for them where the study does not name them."""
    defaults = {}
    for name, field in TrialConfig.model_fields.items():
        if not field.is_required():
            defaults[name] = field.default
    return defaults
