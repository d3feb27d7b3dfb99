"""What `raypatch explain` leaves in a run folder: two tables, and some images with their maps."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from raypatch.results.records import DamagedFileError
from raypatch.storage.files import write_atomically


@dataclass(frozen=True)
class DistanceRow:
    """How far one head looks. layer, head: from 1. distance: mean over patches and images, pixels of the model's input
    (voxels of a volume). image_size: that input's edge. images: how many the mean is over.
    """

    dataset: str
    trial_id: str
    level: str
    layer: int
    head: int
    distance: float
    image_size: int
    images: int


@dataclass(frozen=True)
class SaliencyRow:
    """How one map of one image does.

    map: `attention` (mean of the heads), `attention head 1`, `grad-cam`, `random`, `centre`. index: of
    the image, as in predictions.npz; patient: empty where nobody knows. half_area: share of the image
    in the smallest set that holds half of the map. pointing: share of the map's maximum that lies in
    the mask; mass_ratio: share of the map inside the mask over the mask's share of the image; both
    NaN without a mask. deletion, insertion: areas under the predicted class's probability; NaN with
    masks.
    """

    dataset: str
    trial_id: str
    level: str
    index: int
    patient: str
    label: str
    predicted: str
    probability: float
    map: str
    half_area: float
    pointing: float
    mass_ratio: float
    deletion: float
    insertion: float


Row = TypeVar("Row", DistanceRow, SaliencyRow)


def write_rows(path: Path, kind: type[Row], rows: Sequence[Row]) -> None:
    """Replace a table by these rows of one kind, as CSV; without any it has a heading alone."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([column.name for column in dataclasses.fields(kind)])
    for row in rows:
        writer.writerow(dataclasses.astuple(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lines.getvalue().encode())


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Read a table of rows of one kind. Raises DamagedFileError."""
    row: TypeAdapter[Row] = TypeAdapter(kind)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [row.validate_python(line) for line in csv.DictReader(stream)]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        problem = f"{first['loc'][0]}: {first['msg']}"
        raise DamagedFileError(f"{path} cannot be read ({problem}); run `raypatch explain` again") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); run `raypatch explain` again") from error


@dataclass(frozen=True)
class Pictures:
    """K images of the test split with what a trial makes of them, all at the size that the model sees.

    index: (K,), as in predictions.npz. images: uint8 (K, C, *spatial). maps: by name (K, *spatial)
    float, from 0. halves: bool, of each the smallest set with half
    of it. masks: bool (K, *spatial). label, predicted: words, (K,). probability: (K,) of what
    was predicted. kind: (K,), why each was picked, such as `right, confident`.
    """

    index: NDArray[np.int64]
    images: NDArray[np.uint8]
    label: NDArray[np.str_]
    predicted: NDArray[np.str_]
    probability: NDArray[np.float32]
    kind: NDArray[np.str_]
    maps: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    halves: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    masks: NDArray[np.bool_] | None = None


def write_pictures(path: Path, pictures: Pictures) -> None:
    """Write pictures as .npz: an array for each field, `map NAME` and `half NAME` for each map."""
    arrays = {
        "index": pictures.index,
        "images": pictures.images,
        "label": pictures.label,
        "predicted": pictures.predicted,
        "probability": pictures.probability,
        "kind": pictures.kind,
    }
    for name, values in pictures.maps.items():
        arrays[f"map {name}"] = values.astype(np.float16)
        arrays[f"half {name}"] = pictures.halves[name]
    if pictures.masks is not None:
        arrays["masks"] = pictures.masks
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for one of them
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getbuffer())


def read_pictures(path: Path) -> Pictures:
    """Read pictures. Raises DamagedFileError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [key.removeprefix("map ") for key in stored if key.startswith("map ")]
            return Pictures(
                index=stored["index"],
                images=stored["images"],
                label=stored["label"],
                predicted=stored["predicted"],
                probability=stored["probability"],
                kind=stored["kind"],
                maps={name: stored[f"map {name}"] for name in names},
                halves={name: stored[f"half {name}"] for name in names},
                masks=stored.get("masks"),
            )
    # numpy and zipfile raise many kinds for a broken archive; all mean the same here.
    except Exception as error:
        raise DamagedFileError(f"{path} cannot be read ({error}); run `raypatch explain` again") from error
