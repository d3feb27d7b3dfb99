"""What a run knows of its datasets that its reports must tell: which test images repeat an image of train or val,
and what else a check found. Written when the sweep starts.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from raypatch.storage.files import write_atomically


class RepeatedImages(BaseModel):
    """test: by dataset, and fold where trials have one (`repeated_key`), the indices of test images
    that are near-duplicates of images of train or val, ascending. findings: by own dataset what
    else a check found, a few words each.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    test: dict[str, tuple[int, ...]] = {}
    findings: dict[str, tuple[str, ...]] = {}


def repeated_key(dataset: str, fold: int | None) -> str:
    """Under which the test images of a dataset stand: each fold has others."""
    return dataset if fold is None else f"{dataset} fold {fold}"


def read_repeated_images(path: Path) -> RepeatedImages:
    """Return what twins.json says; nothing where there is none, or none that can be read."""
    try:
        return RepeatedImages.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return RepeatedImages()


def write_repeated_images(path: Path, content: RepeatedImages) -> None:
    """Replace twins.json."""
    write_atomically(path, content.model_dump_json().encode() + b"\n")
