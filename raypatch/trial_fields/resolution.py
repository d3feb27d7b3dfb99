"""Which file a trial reads: a dataset may come as several files, the same images at several sizes."""

import functools
from collections.abc import Mapping

from raypatch.data.catalog import catalog
from raypatch.storage.own_files import OWN_FILE, OWN_SET


@functools.cache
def resolutions_of(dataset: str) -> Mapping[int, str]:
    """Return by edge in pixels the file that has a dataset's images at this size, as a name that data are read by.

    Empty for a dataset that is one file: an own one, made images, or one of MedMNIST's named with its size.
    """
    own = OWN_SET.fullmatch(dataset)
    if own:
        files = {}
        for member in own["members"].split("+"):
            edge, digest = member.split("=")
            files[int(edge)] = f"file:{own['stem']}@{digest}"
        return files
    if OWN_FILE.fullmatch(dataset) or dataset not in catalog() or dataset.rpartition("_")[2].isdigit():
        return {}
    files = {}
    for name, info in catalog().items():
        # As MedMNIST names its files: 28 pixels are not said.
        if name == dataset or name == f"{dataset}_{info.size}":
            files[info.size] = name
    return files if len(files) > 1 else {}


def source_name(dataset: str, resolution: int | None) -> str:
    """Return the name that a dataset's images at `resolution` are read by; None stands for its only file.

    Raises ValueError for a resolution that there is not, and for own files of which none is chosen.
    """
    files = resolutions_of(dataset)
    if resolution is None:
        if OWN_SET.fullmatch(dataset):
            edges = ", ".join(map(str, files))
            raise ValueError(f"{dataset} comes in several sizes: choose by resolution, one of {edges}")
        return dataset
    if resolution in files:
        return files[resolution]
    if files:
        edges = ", ".join(map(str, files))
        raise ValueError(f"resolution={resolution}: {dataset} comes in {edges} pixels; use one of these")
    raise ValueError(
        f"resolution={resolution}: {dataset} is one file of one size; leave resolution out, name a MedMNIST set without"
        " its size, or list own files by size under `resolutions:` in the study"
    )
