"""What a segmentation leaves besides its counts: some images with their masks, and all pixels if asked for."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import Split
from raypatch.results.records import DamagedFileError
from raypatch.storage.files import write_atomically


@dataclass(frozen=True)
class Examples:
    """K test images with their masks, at the size of the file.

    index: (K,), as in predictions.npz. images: uint8 (K, C, H, W). truth, predicted: class numbers, uint8 (K, H, W).
    """

    index: NDArray[np.int64]
    images: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


@dataclass(frozen=True)
class Pixels:
    """Every pixel of a split, at the size of the file.

    index: (N,), as in predictions.npz. probability: uint8 (N, C, H, W), in 255ths. truth: uint8 (N, H, W).
    """

    index: NDArray[np.int64]
    probability: NDArray[np.uint8]
    truth: NDArray[np.uint8]


def write_examples(path: Path, examples: Examples) -> None:
    """Replace examples.npz."""
    _write(path, vars(examples))


def read_examples(path: Path) -> Examples | None:
    """Read examples.npz; None where there is none. Raises DamagedFileError."""
    if not path.exists():
        return None
    return Examples(**_read(path, ("index", "images", "truth", "predicted")))


def write_pixels(path: Path, splits: dict[Split, Pixels]) -> None:
    """Replace masks.npz: `<split>_index`, `_probability` and `_truth`."""
    arrays = {}
    for split, pixels in splits.items():
        for name, values in vars(pixels).items():
            arrays[f"{split}_{name}"] = values
    _write(path, arrays)


def read_pixels(path: Path, split: Split) -> Pixels:
    """Read one split of masks.npz. Raises DamagedFileError."""
    names = ("index", "probability", "truth")
    stored = _read(path, tuple(f"{split}_{name}" for name in names))
    return Pixels(**{name: stored[f"{split}_{name}"] for name in names})


def _write(path: Path, arrays: dict[str, Any]) -> None:
    # By way of memory: numpy would write into the file itself, and a kill leave half of it.
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())


def _read(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in names}
    # numpy and zipfile raise many kinds for a broken archive; all mean the same here.
    except Exception as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); remove the trial folder to run it again") from error
