"""The groups of a search while it runs, and the trials that they have drawn."""

from collections.abc import Sequence

from raypatch.config import TrialConfig
from raypatch.factors import levels_by_fields
from raypatch.results import SweepRecord
from raypatch.sweep.tuning.group import SearchGroup


class SearchState:
    """What the parts of a running search share.

    groups: in the order of sweep.json. levels: by trial id its level of each factor, of the
    trials drawn so far.
    """

    def __init__(self, record: SweepRecord, groups: Sequence[SearchGroup]) -> None:
        assert record.search is not None
        self.search = record.search
        self.groups = groups
        self.levels: dict[str, tuple[str, ...]] = {}
        self._record = record
        self._drawn: list[TrialConfig] = []
        self._group_of: dict[str, SearchGroup] = {}

    @property
    def record(self) -> SweepRecord:
        """What sweep.json is to hold now: the trials drawn so far, in order."""
        drawn = {"trials": tuple(self._drawn), "levels": dict(self.levels)}
        return self._record.model_copy(update=drawn)

    @property
    def undrawn(self) -> list[TrialConfig]:
        """A stand-in for each sample that is still to be drawn."""
        samples = []
        for group in self.groups:
            samples += [group.base] * group.undrawn
        return samples

    def group_of(self, trial_id: str) -> SearchGroup:
        """The group that drew a trial."""
        return self._group_of[trial_id]

    def add(self, group: SearchGroup, config: TrialConfig) -> None:
        """Note that `group` has drawn a trial."""
        trial_id = config.trial_id()
        self._group_of[trial_id] = group
        self._drawn.append(config)
        self.levels[trial_id] = levels_by_fields(config, self._record.factors)
