"""At the start of a sweep: note for its reports what should be known of its datasets."""

from collections.abc import Callable, Iterable
from pathlib import Path

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import canonical_name, catalog
from raypatch.data.check import short_findings
from raypatch.data.check.twins import find_twins
from raypatch.data.source import locate
from raypatch.results import SweepPaths
from raypatch.results.repeated import RepeatedImages, read_repeated_images, repeated_key, write_repeated_images
from raypatch.storage.own_files import OWN_FILE, own_file_stem
from raypatch.words import agree, counted


def note_twins(
    configs: Iterable[TrialConfig], paths: SweepPaths, options: RunOptions, say: Callable[[str], object]
) -> None:
    """Find the twins of each dataset and fold that twins.json does not know yet, and of own files what else
    a check finds; say that in one line per dataset. Made images have none to speak of.

    Of a dataset in several sizes they are those of the size that comes first: an image has one index in all.
    """
    known = read_repeated_images(paths.twins)
    test, findings = dict(known.test), dict(known.findings)
    sources: dict[tuple[str, int | None], str] = {}
    for config in configs:
        sources.setdefault((config.dataset, config.fold), config.source)
    for (dataset, fold), source in sources.items():
        is_own = bool(OWN_FILE.fullmatch(source))
        made_up = not is_own and catalog()[canonical_name(source)].made_up
        key = repeated_key(dataset, fold)
        if key in test or made_up:
            continue
        path = locate(source, data_dir=options.data_dir, files=options.files)
        twins = find_twins(path, fold)
        test[key] = tuple(sorted({twin.index for twin in twins if twin.split == "test"}))
        told = []
        if test[key]:
            repeat = agree(len(test[key]), "repeats", "repeat")
            told.append(f"{counted(len(test[key]), 'test image')} {repeat} one of train or val")
        if is_own and dataset not in findings:
            findings[dataset] = tuple(short_findings(path))
            told += findings[dataset]
        if told:
            say(_one_line(source, path, told))
    if len(test) > len(known.test):
        write_repeated_images(paths.twins, RepeatedImages(test=test, findings=findings))


def _one_line(source: str, path: Path, told: Iterable[str]) -> str:
    stem = own_file_stem(source)
    shown = path if stem else source
    return f"{stem or source}: {'; '.join(told)}. `raypatch data check {shown}` shows more"
