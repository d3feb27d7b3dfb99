"""An own dataset that comes as several files: the same images, in the same order, at several sizes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raypatch.data.catalog import SPLITS
from raypatch.data.layout.npz import inspect_npz, read_split_labels
from raypatch.storage.own_files import own_file_id, plain_stem
from raypatch.trial_fields.resolution import resolutions_of


def files_in_folder(folder: Path) -> dict[int, Path]:
    """Return the .npz files of a folder by the edge of their images; empty for a folder without any.

    Raises ValueError for two of one size.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.npz")):
        if path.name.startswith("."):
            continue
        edge = inspect_npz(path).size
        if edge in files:
            raise ValueError(f"{files[edge].name} and {path.name} in {folder} both have {edge} pixels; keep one")
        files[edge] = path
    return files


def name_set(name: str, files: Mapping[int, Path]) -> tuple[str, dict[str, Path]]:
    """Return how a set of files stands in a config, and where each of them lies by its own name there.

    Raises ValueError where a file has another size than is said, or other images than the others.
    """
    for edge, path in files.items():
        found = inspect_npz(path).size
        if found != edge:
            raise ValueError(f"resolutions: {path} has images of {found} pixels, not {edge}; name it so")
    _require_same_images(files)
    paths = [files[edge] for edge in sorted(files)]
    members = []
    for edge in sorted(files):
        digest = own_file_id(files[edge]).rpartition("@")[2]
        members.append(f"{edge}={digest}")
    # `file:NAME@28=DIGEST+128=DIGEST`.
    identity = f"file:{plain_stem(name)}@{'+'.join(members)}"
    return identity, dict(zip(resolutions_of(identity).values(), paths, strict=True))


def _require_same_images(files: Mapping[int, Path]) -> None:
    """See that all files have the same labels in the same order, which is what can be told of the images."""
    (first, *others) = files.values()
    expected = inspect_npz(first)
    for path in others:
        found = inspect_npz(path)
        # Class names may be in one file alone: their number is what the labels say.
        for fact in ("task", "counts", "channels", "dimensions", "mirror_safe"):
            if getattr(found, fact) != getattr(expected, fact):
                raise ValueError(
                    f"resolutions: {path} and {first} must have the same images; {fact} is {getattr(found, fact)} in"
                    f" one and {getattr(expected, fact)} in the other"
                )
        for split in SPLITS:
            if not np.array_equal(read_split_labels(path, split), read_split_labels(first, split)):
                raise ValueError(
                    f"resolutions: {path} and {first} must have the same images in the same order, and their"
                    f" {split}_labels differ"
                )
