"""At the start of a sweep: note for its reports which test images are no new ones."""

from collections.abc import Iterable

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import canonical_name, catalog
from raypatch.data.source import locate
from raypatch.data.twins import find_twins
from raypatch.results import SweepPaths
from raypatch.results.repeated import read_repeated, write_repeated
from raypatch.storage.own_files import OWN_FILE


def note_twins(trials: Iterable[TrialConfig], paths: SweepPaths, options: RunOptions) -> None:
    """Find the twins of each dataset that twins.json does not know yet; made images have none to speak of.

    Of a dataset in several sizes they are those of the size that comes first: an image has one index in all.
    """
    known = read_repeated(paths.twins)
    sources: dict[str, str] = {}
    for config in trials:
        sources.setdefault(config.dataset, config.source)
    found = {}
    for dataset, source in sources.items():
        made_up = not OWN_FILE.fullmatch(source) and catalog()[canonical_name(source)].made_up
        if dataset in known or made_up:
            continue
        twins = find_twins(locate(source, data_dir=options.data_dir, files=options.files))
        found[dataset] = tuple(sorted({twin.index for twin in twins if twin.split == "test"}))
    if found:
        write_repeated(paths.twins, known | found)
