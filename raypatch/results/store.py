"""Writers and readers of a run folder's files;
a reader says which file is damaged and what to do about it.
"""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from raypatch.config import TrialConfig
from raypatch.data.catalog import Split
from raypatch.results.records import (
    SCHEMA_VERSION,
    DamagedFileError,
    EpochRow,
    NewerSchemaError,
    Predictions,
    SweepRecord,
    TrialResult,
)
from raypatch.storage.files import write_atomically


def append_epoch(path: Path, row: EpochRow, *, sync: bool = True) -> None:
    """Append one line to epochs.jsonl.

    sync: that and all lines before it are on disk at the return, as they must be before a checkpoint.
    """
    with path.open("a", encoding="utf-8") as stream:
        stream.write(row.model_dump_json() + "\n")
        stream.flush()
        if sync:
            os.fsync(stream.fileno())


def read_epochs(path: Path) -> list[EpochRow]:
    """Read epochs.jsonl; a half last line, as a kill leaves it, ends the list.

    No file gives no rows.

    Raises DamagedFileError when a line before the last cannot be read.
    """
    if not path.exists():
        return []
    # A kill may also cut a letter of several bytes in two: replaced, its line fails as JSON.
    lines = path.read_text("utf-8", errors="replace").splitlines()
    rows: list[EpochRow] = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(EpochRow.model_validate_json(line))
        except ValidationError as error:
            # The line that a kill cut off: its epoch is trained again.
            if number == len(lines):
                break
            raise DamagedFileError(
                f"{path} line {number} is damaged; remove the trial folder to run it again"
            ) from error
    return rows


def write_epochs(path: Path, rows: list[EpochRow]) -> None:
    """Replace epochs.jsonl by `rows`."""
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    write_atomically(path, lines.encode())


def write_json(path: Path, record: BaseModel) -> None:
    """Replace `path` by the record as indented JSON."""
    write_atomically(path, record.model_dump_json(indent=1).encode() + b"\n")


def _read_json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} is damaged (not a JSON object); {remedy}")
    # Before anything else is read: what a newer version means by a field is not known here.
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} has schema version {version}, this raypatch reads up to {SCHEMA_VERSION}; install a newer raypatch"
        )
    return content


def read_result(path: Path) -> TrialResult | None:
    """Read result.json; None when the trial is not over. Raises DamagedFileError."""
    if not path.exists():
        return None
    remedy = "remove it to run the trial again"
    try:
        return TrialResult.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(
            f"{path} is damaged ({error.error_count()} wrong fields); {remedy}",
        ) from error


def write_config(path: Path, config: TrialConfig) -> None:
    """Write config.json: every field, defaults too, for people;
    the id hangs on the canonical form alone.
    """
    write_json(path, config)


def read_config(path: Path) -> TrialConfig:
    """Read config.json. Raises DamagedFileError."""
    remedy = "remove the trial folder to run it again"
    try:
        return TrialConfig.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(
            f"{path} is damaged ({error.error_count()} wrong fields); {remedy}",
        ) from error


def read_sweep(path: Path) -> SweepRecord:
    """Read sweep.json. Raises DamagedFileError, also when the file is missing."""
    remedy = "give a folder that `raypatch run` made"
    if not path.exists():
        raise DamagedFileError(
            f"{path.parent} is no run folder: there is no {path.name} in it; `raypatch runs` lists those in runs/"
        )
    try:
        return SweepRecord.model_validate(_read_json(path, remedy))
    except ValidationError as error:
        raise DamagedFileError(
            f"{path} is damaged ({error.error_count()} wrong fields); {remedy}",
        ) from error


def write_predictions(path: Path, splits: Mapping[Split, Predictions]) -> None:
    """Write predictions.npz: `<split>_index`, `_label`, `_probability`, and if known `<split>_group` and `_id`.

    Of a segmentation `_truth`, `_prediction` and `_intersection`, pixels (N, C), in place of label and probability.
    """
    arrays: dict[str, Any] = {}
    for split, predictions in splits.items():
        arrays[f"{split}_index"] = predictions.index
        if predictions.of_masks:
            arrays[f"{split}_truth"] = predictions.label
            arrays[f"{split}_intersection"] = predictions.probability[..., 0].astype(np.int64)
            arrays[f"{split}_prediction"] = predictions.probability[..., 1].astype(np.int64)
        else:
            arrays[f"{split}_label"] = predictions.label
            arrays[f"{split}_probability"] = predictions.probability
        if predictions.group is not None:
            arrays[f"{split}_group"] = predictions.group
        if predictions.id is not None:
            arrays[f"{split}_id"] = predictions.id
    # By way of memory: numpy would write into the file itself, and a kill leave half of it.
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomically(path, buffer.getbuffer())


def read_predictions(path: Path, split: Split) -> Predictions:
    """Read one split of predictions.npz.

    Raises DamagedFileError when it is missing, truncated or inconsistent.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            label, probability = _read_predicted(stored, split)
            found = Predictions(
                index=stored[f"{split}_index"],
                label=label,
                probability=probability,
                group=stored.get(f"{split}_group"),
                id=stored.get(f"{split}_id"),
            )
    # numpy and zipfile raise many kinds for a broken archive; all mean the same here.
    except Exception as error:
        raise DamagedFileError(
            f"{path} cannot be read ({error}); remove the trial folder to run it again",
        ) from error
    count = len(found.index)
    lengths = {len(found.label), len(found.probability)}
    for names in (found.group, found.id):
        if names is not None:
            lengths.add(len(names))
    # A file may be whole as an archive and yet not as predictions.
    if lengths != {count} or found.probability.ndim not in (2, 3):
        raise DamagedFileError(
            f"{path} holds arrays of different length for {split}; remove the trial folder",
        )
    return found


def _read_predicted(stored: Mapping[str, Any], split: Split) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Label and probability as Predictions has them."""
    if f"{split}_truth" not in stored:
        return stored[f"{split}_label"], stored[f"{split}_probability"]
    parts = [stored[f"{split}_intersection"], stored[f"{split}_prediction"]]
    # Exact: an image has fewer pixels than float32 has whole numbers.
    return stored[f"{split}_truth"], np.stack(parts, axis=-1).astype(np.float32)
