"""Masks of new images, in the geometry of their files, and written as these are."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from raypatch.data.catalog import Split
from raypatch.data.inputs import InputRule
from raypatch.data.inputs.reading import read_scan
from raypatch.data.inputs.scan import ImageFiles, format_of
from raypatch.data.inputs.shape import unfit
from raypatch.data.inputs.volumes import write_mask_like
from raypatch.data.layout.archive import Archive
from raypatch.data.layout.images import check_images
from raypatch.data.layout.masks import read_masks
from raypatch.data.pack.sources.listing import without_suffix
from raypatch.predict.choose import choose_members, find_trials
from raypatch.predict.source import Source, open_source
from raypatch.predict.weights import prepare_member
from raypatch.results import DatasetFacts
from raypatch.storage.files import write_atomically
from raypatch.tasks import MaskTask, find_task, reads_masks
from raypatch.tasks.overlap import dice_of_images
from raypatch.training.kept_masks import pixel_probabilities

PALETTE = (0, 0, 0, 0, 200, 160, 255, 170, 0, 47, 134, 189, 169, 90, 181, 213, 94, 0)
"""Red, green, blue of the first classes in a PNG: its numbers are the classes, whatever their colours."""


@dataclass(frozen=True)
class PredictedMasks:
    """names, masks: of each image, class numbers (H, W) in the geometry of its file. files: None for an .npz.

    dice: of each image, where the source has masks. classes: the background first. members: the ids
    of the trials that predicted. patients: who is on each image, where the source knows.
    """

    names: tuple[str, ...]
    masks: tuple[NDArray[np.uint8], ...]
    files: tuple[ImageFiles, ...] | None
    classes: tuple[str, ...]
    dice: NDArray[np.float64] | None
    members: tuple[str, ...]
    patients: NDArray[np.str_] | None = None

    def table(self) -> str:
        """Return a CSV with a row per image: name, the share of its pixels of each class, Dice and patient if known."""
        shares = []
        for mask in self.masks:
            shares.append(np.bincount(mask.ravel(), minlength=len(self.classes)) / mask.size)
        columns: dict[str, Sequence[str]] = {"name": self.names}
        for name, share in zip(self.classes, np.transpose(shares).tolist(), strict=True):
            columns[f"share({name})"] = list(map(repr, share))
        if self.dice is not None:
            columns["dice"] = list(map(repr, self.dice.tolist()))
        if self.patients is not None:
            columns["patient"] = self.patients.tolist()
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        return lines.getvalue()


def has_masks(folder: Path, dataset: str | None, levels: Sequence[str] | None) -> bool:
    """Whether the trials of a run that would predict are segmentations. Raises ValueError as `predict_masks`."""
    return reads_masks(choose_members(find_trials(folder), dataset, levels)[0].dataset.task)


def predict_masks(
    folder: Path, path: Path, *, dataset: str | None, levels: Sequence[str] | None, split: Split, device: str
) -> PredictedMasks:
    """Predict masks of new images with the best trial of each level, the mean of their probabilities.

    Arguments as of `predict`. Raises ValueError when there is no such trial, for trials that are no
    segmentations, and for images that do not fit.
    """
    members = choose_members(find_trials(folder), dataset, levels)
    facts = members[0].dataset
    task = find_task(facts.task)
    if not isinstance(task, MaskTask):
        raise ValueError(f"{folder} predicts classes, not masks: its task is {facts.task}")
    source = open_source(path, split, facts)
    edge, truth = _size_of(source, facts, max(member.config.image_size for member in members))
    total: NDArray[np.float32] | None = None
    for member in members:
        # Read for each member: levels may differ in the size that their models see.
        images = source.read(member.config, member.dataset)
        prepared, _ = prepare_member(member, device)
        probability = pixel_probabilities(prepared, images, edge, task)
        total = probability if total is None else total + probability
    assert total is not None, "there is a member"
    mean = (total / len(members)).astype(np.float32)
    files = source.files(facts)
    if files is None:
        masks = tuple(task.predicted_masks(mean))
    else:
        rule = InputRule.from_json(facts.rule) if facts.rule else None
        masks = tuple(_as_in_files(mean, files, rule, task))
    dice = None
    if truth is not None:
        dice = dice_of_images(*task.count(np.stack(masks), truth, len(facts.classes) - 1))
    trial_ids = tuple(member.result.trial_id for member in members)
    return PredictedMasks(source.names, masks, files, facts.classes, dice, trial_ids, source.patients)


def _size_of(source: Source, facts: DatasetFacts, seen: int) -> tuple[int, NDArray[np.uint8] | None]:
    """The edge at which masks are predicted, and the true masks of an .npz that has them."""
    if source.path.suffix != ".npz":
        return (InputRule.from_json(facts.rule).size if facts.rule else seen), None
    with Archive(source.path) as archive:
        key = f"{source.split}_images"
        if key not in archive:
            return seen, None
        shape = check_images(archive, key)
        truth = read_masks(archive, source.split, shape) if f"{source.split}_masks" in archive else None
        return shape[1], truth


def _as_in_files(
    mean: NDArray[np.float32], files: Sequence[ImageFiles], rule: InputRule | None, task: MaskTask
) -> Iterator[NDArray[np.uint8]]:
    """The masks of images brought back to what their files hold."""
    for probability, file in zip(mean, files, strict=True):
        scan = read_scan(file, dimensions=2, frame=rule.frame if rule else None)
        edges = (scan.values.shape[0], scan.values.shape[1])
        planes = torch.from_numpy(probability)
        if rule is None:
            back = unfit(planes, edges, None, "squeeze", None)
        else:
            spacing = None if rule.shape == "squeeze" else scan.spacing
            back = unfit(planes, edges, spacing, rule.shape, rule.spacing)
        yield task.predicted_masks(back.numpy()[None])[0]


def write_masks(found: PredictedMasks, out: Path) -> list[Path]:
    """Write the masks: one .npz, if `out` is named so, else a PNG for each in the folder `out`, .nii.gz for NIfTI.

    A PNG holds class numbers with a palette; the .npz `masks`, `names` and `class_names`. Raises
    ValueError for masks of several sizes in one .npz.
    """
    if out.suffix == ".npz":
        if len({mask.shape for mask in found.masks}) > 1:
            raise ValueError(f"--masks {out}: the images have several sizes; give a folder, for a file each")
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            masks=np.stack(found.masks),
            names=np.array(found.names),
            class_names=np.array(found.classes),
        )
        write_atomically(out, stream.getbuffer())
        return [out]
    written = []
    for number, (name, mask) in enumerate(zip(_stems(found.names), found.masks, strict=True)):
        source = found.files[number] if found.files else None
        is_nifti = source is not None and format_of(source.path) == "nifti"
        path = out / f"{name}{'.nii.gz' if is_nifti else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_nifti and source is not None:
            write_mask_like(source.path, mask, path)
        else:
            _write_png(mask, path)
        written.append(path)
    return written


def _stems(names: Sequence[str]) -> list[str]:
    """A file's name for each image, without suffix; numbered where two would be one."""
    stems = []
    for name in names:
        plain = Path(name.replace(":", "_")).parts
        safe = [part for part in plain if part not in ("..", "/", "\\")]
        last = without_suffix(Path(safe[-1]))
        stems.append("/".join([*safe[:-1], last]))
    if len(set(stems)) == len(stems):
        return stems
    return [f"{stem}_{number}" for number, stem in enumerate(stems)]


def _write_png(mask: NDArray[np.uint8], path: Path) -> None:
    picture = Image.fromarray(mask).convert("P")
    picture.putpalette(PALETTE)
    # The numbers as they are: converting would choose colours.
    picture.putdata(mask.ravel().tolist())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    write_atomically(path, stream.getbuffer())
