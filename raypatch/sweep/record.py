"""sweep.json: made for a study that is run, and completed where an earlier version wrote it."""

import datetime
import sys
from typing import Any

from raypatch.config import RunOptions
from raypatch.factors import Factor, factor_of_field, levels_by_fields
from raypatch.machine.runtime import provenance
from raypatch.results import SCHEMA_VERSION, SweepRecord
from raypatch.study import Study
from raypatch.study.resolve import StudySearch, resolve_search, resolve_trials, searched_factor
from raypatch.sweep.session import ExecutorOptions


def make_record(study: Study, name: str, options: RunOptions, execution: ExecutorOptions) -> SweepRecord:
    """Resolve a study to what sweep.json holds of it. name: of the run folder.

    Raises ValueError for a wrong study.
    """
    record = SweepRecord(
        name=name,
        study=study.name,
        command=tuple(sys.argv),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        provenance=provenance(),
        executor=execution.model_dump(mode="json"),
        metric=study.metric,
        repeats=study.repeats,
        expect=study.expect,
        trials=(),
    )
    resolved = resolve_trials(study) if study.search is None else resolve_search(study)
    located = options.model_copy(update={"files": resolved.files})
    fields: dict[str, Any] = {
        "factors": resolved.factors,
        "options": located.model_dump(mode="json"),
    }
    if isinstance(resolved, StudySearch):
        # Its trials are added one by one, as they are drawn.
        fields["search"] = resolved.search
    else:
        fields["trials"] = resolved.planned
        fields["levels"] = resolved.levels
    return record.model_copy(update=fields)


def complete_record(record: SweepRecord) -> SweepRecord:
    """Return the record as this version writes it."""
    # Schema 1 asked for the patch size alone and did not say so.
    factors = record.factors or (_patch_size_of(record),)
    levels = dict(record.levels)
    for config in record.trials:
        # What makes weights is no level.
        if config.makes_weights and config.trial_id() not in levels:
            continue
        levels.setdefault(config.trial_id(), levels_by_fields(config, factors))
    completed = {"schema_version": SCHEMA_VERSION, "factors": factors, "levels": levels}
    return record.model_copy(update=completed)


def _patch_size_of(record: SweepRecord) -> Factor:
    """The factor of a run folder of schema 1."""
    configs = record.search.groups if record.search else record.trials
    factor = factor_of_field("patch_size", [config.patch_size for config in configs])
    return searched_factor(factor, record.search.settings) if record.search else factor
