"""Which test images of a run's datasets repeat an image of train or val:
written when the sweep starts, for reports.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.storage.files import write_atomically


class RepeatedImages(BaseModel):
    """test: by dataset the indices of test images that are
    near-duplicates of images of train or val, ascending.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    test: dict[str, tuple[int, ...]]


def read_repeated(path: Path) -> dict[str, tuple[int, ...]]:
    """Return what twins.json says, by dataset; empty where there is none, or none that can be read."""
    try:
        return dict(RepeatedImages.model_validate_json(path.read_bytes()).test)
    except (OSError, ValidationError):
        return {}


def write_repeated(path: Path, test: Mapping[str, tuple[int, ...]]) -> None:
    """Replace twins.json."""
    write_atomically(path, RepeatedImages(test=dict(test)).model_dump_json().encode() + b"\n")
