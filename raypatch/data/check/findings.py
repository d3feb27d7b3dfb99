"""Balance, intensities, repeated images and patients of an .npz, in numbers and in sentences."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, Split
from raypatch.data.check.twins import Twin, describe_twins, find_twins
from raypatch.data.layout.archive import Archive
from raypatch.data.layout.images import check_images
from raypatch.data.layout.labels import read_class_names, read_labels, read_task, read_texts
from raypatch.words import agree, counted, first_of

FEW = 10
"""Images of a class in a split, or its patients, below which its scores say little."""

UNBALANCED = 10.0
"""How many times as many images the largest class may have as the smallest."""

DRIFT = 0.5
"""By how much the mean brightness of a split may differ from that of train, in its standard deviations over images."""

_AT_ONCE = 32 << 20


@dataclass(frozen=True)
class Brightness:
    """Of the images of one split, 0 to 255. means: of each image. low, high: lowest and highest value.
    flat: images of one value only. clipped: share of pixels at 255.
    """

    means: NDArray[np.float64]
    low: int
    high: int
    flat: tuple[int, ...]
    clipped: float


@dataclass(frozen=True)
class Findings:
    """What a check found.

    shape: of one image. counts: images of each split. classes: their names, empty for masks alone.
    balance: (3, C) images by split and class. patients: number in each split, None where nobody is
    known. ids: what images are called, None where nothing says. twins: near-duplicates across splits.
    warnings: what should be looked after, a sentence each.
    """

    path: Path
    shape: tuple[int, ...]
    counts: dict[Split, int]
    classes: tuple[str, ...]
    balance: NDArray[np.int64]
    patients: dict[Split, int] | None
    ids: dict[Split, NDArray[np.str_]] | None
    brightness: dict[Split, Brightness]
    twins: tuple[Twin, ...]
    has_masks: bool
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """All of it, as text."""
        if not self.warnings:
            return [*self.facts(), "nothing else to look after"]
        return [*self.facts(), "to look after:", *(f"  - {warning}" for warning in self.warnings)]

    def facts(self) -> list[str]:
        """What was seen, without the warnings, as text."""
        shape = " x ".join(map(str, self.shape))
        masks = ", with masks" if self.has_masks else ""
        lines = [f"{self.path.name}: {counted(sum(self.counts.values()), 'image')} of {shape}{masks}"]
        lines += _balance_lines(self)
        lines.append("brightness, 0 to 255:")
        for split, found in self.brightness.items():
            lines.append(
                f"  {split:6} mean {found.means.mean():.1f} ± {found.means.std():.1f} over images, values"
                f" {found.low} to {found.high}, {found.clipped:.1%} of pixels at 255"
            )
        return lines + describe_twins(self.twins, self.counts, rest="check.json lists them", ids=self.ids)


def check_file(path: Path, on_progress: Callable[[str, int, int], object] = lambda *_: None) -> Findings:
    """Check an .npz in MedMNIST's layout, with labels or with masks alone; images are read in parts.

    Raises DataError for a file that is damaged or not in the layout.
    """
    with Archive(path) as archive:
        shapes = {split: check_images(archive, f"{split}_images") for split in SPLITS}
        counts = {split: shape[0] for split, shape in shapes.items()}
        classes, balance = _read_balance(archive, counts)
        patients = _read_patients(archive, counts)
        ids = _read_by_split(archive, "ids", counts)
        brightness: dict[Split, Brightness] = {}
        for number, split in enumerate(SPLITS):
            on_progress("brightness", number, len(SPLITS))
            brightness[split] = _measure(archive, split, shapes[split])
        has_masks = "train_masks" in archive
    on_progress("near-duplicates", 0, 1)
    twins = tuple(find_twins(path))
    on_progress("near-duplicates", 1, 1)
    people = None
    if patients is not None:
        people = {split: len(np.unique(who)) for split, who in patients.items()}
    warnings = _warn(counts, classes, balance, patients, twins)
    warnings += _warn_of_brightness(brightness)
    return Findings(
        path, shapes["train"][1:], counts, classes, balance, people, ids, brightness, twins, has_masks, warnings
    )


def short_findings(path: Path) -> list[str]:
    """Return what a run and its report tell of an own file besides twins, a few words each; images are not read.

    Raises DataError.
    """
    with Archive(path) as archive:
        counts = {split: check_images(archive, f"{split}_images")[0] for split in SPLITS}
        classes, balance = _read_balance(archive, counts)
        patients = _read_patients(archive, counts)
    return _warn(counts, classes, balance, patients, ())


def find_torn_patients(patients: dict[Split, NDArray[np.str_]]) -> list[str]:
    """Return the patients who have images in more than one split, sorted."""
    sides: Counter[str] = Counter()
    for who in patients.values():
        sides.update(set(who.tolist()))
    return sorted(patient for patient, splits in sides.items() if splits > 1)


def describe_torn_patients(path: Path, *, show: int | None = 5) -> list[str]:
    """Return in sentences whether a patient is in more than one split of an .npz, and who; show: None names all.

    Raises DataError.
    """
    with Archive(path) as archive:
        counts = {split: check_images(archive, f"{split}_images")[0] for split in SPLITS}
        patients = _read_patients(archive, counts)
    if patients is None:
        return ["patients: the file does not say who is on its images"]
    people = ", ".join(f"{split} {len(set(who.tolist()))}" for split, who in patients.items())
    torn = find_torn_patients(patients)
    if not torn:
        return [f"patients: {people}; none is in two splits"]
    are = agree(len(torn), "is", "are")
    lines = [f"patients: {people}; {len(torn)} {are} in more than one split, so that scores may be too high:"]
    for patient in torn[:show]:
        sides = [f"{split} {(who == patient).sum()}" for split, who in patients.items() if (who == patient).any()]
        lines.append(f"  {patient}: images in {', '.join(sides)}")
    if show is not None and len(torn) > show:
        lines.append(f"  and {len(torn) - show} more (--all lists them)")
    return lines


def _read_balance(archive: Archive, counts: dict[Split, int]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the classes, and (3, C) how many images each split has of each."""
    if "train_labels" not in archive and "train_masks" in archive:
        return (), np.zeros((len(SPLITS), 0), dtype=np.int64)
    labels = {split: read_labels(archive, split, counts[split]) for split in SPLITS}
    _, count = read_task(archive, labels)
    rows = []
    for values in labels.values():
        several = values.ndim == 2
        rows.append(values.sum(axis=0) if several else np.bincount(values, minlength=count))
    return read_class_names(archive, count), np.stack(rows)


def _read_patients(archive: Archive, counts: dict[Split, int]) -> dict[Split, NDArray[np.str_]] | None:
    return _read_by_split(archive, "patients", counts) or _read_by_split(archive, "groups", counts)


def _read_by_split(archive: Archive, name: str, counts: dict[Split, int]) -> dict[Split, NDArray[np.str_]] | None:
    """Texts beside the images, by split; None where a split has none."""
    found: dict[Split, NDArray[np.str_]] = {}
    for split in SPLITS:
        texts = read_texts(archive, [f"{split}_{name}"], [counts[split]])
        if texts is None:
            return None
        found[split] = texts
    return found


def _measure(archive: Archive, split: Split, shape: tuple[int, ...]) -> Brightness:
    rows = max(1, _AT_ONCE // int(np.prod(shape[1:])))
    means, flat = [], []
    low, high, clipped = 255, 0, 0
    start = 0
    for part in archive.chunks(f"{split}_images", rows):
        each = part.reshape(len(part), -1)
        means.append(each.mean(axis=1, dtype=np.float64))
        darkest, brightest = each.min(axis=1), each.max(axis=1)
        flat += (np.flatnonzero(darkest == brightest) + start).tolist()
        low, high = min(low, int(darkest.min())), max(high, int(brightest.max()))
        clipped += int(np.count_nonzero(each == 255))
        start += len(part)
    share = clipped / (start * int(np.prod(shape[1:])))
    return Brightness(np.concatenate(means), low, high, tuple(flat), share)


def _warn(
    counts: dict[Split, int],
    classes: Sequence[str],
    balance: NDArray[np.int64],
    patients: dict[Split, NDArray[np.str_]] | None,
    twins: Sequence[Twin],
) -> list[str]:
    warnings = []
    later: tuple[Split, ...] = ("test", "val")
    for split in later:
        repeated = {twin.index for twin in twins if twin.split == split}
        if repeated:
            repeat = agree(len(repeated), "repeats", "repeat")
            warnings.append(f"{len(repeated)} of {counts[split]} {split} images {repeat} one of an earlier split")
    torn = find_torn_patients(patients) if patients is not None else []
    if torn:
        are = agree(len(torn), "is", "are")
        warnings.append(f"{counted(len(torn), 'patient')} {are} in more than one split: {first_of(torn)}")
    few = []
    for number, split in enumerate(SPLITS):
        for name, images in zip(classes, balance[number].tolist(), strict=True):
            if images < FEW:
                few.append(f"{name} in {split} ({images})")
    if few:
        warnings.append(f"fewer than {FEW} images: {first_of(few)}")
    totals = balance.sum(axis=0)
    if len(totals) and totals.max() > UNBALANCED * max(1, totals.min()):
        most, least = classes[int(totals.argmax())], classes[int(totals.argmin())]
        warnings.append(f"unbalanced: {counted(int(totals.max()), 'image')} of {most}, {totals.min()} of {least}")
    return warnings


def _warn_of_brightness(brightness: dict[Split, Brightness]) -> list[str]:
    warnings = []
    for split, found in brightness.items():
        if found.flat:
            images = counted(len(found.flat), f"{split} image")
            are = agree(len(found.flat), "is", "are")
            warnings.append(f"{images} {are} of one value only, such as {split} {found.flat[0]}")
    train = brightness["train"]
    for split in SPLITS[1:]:
        away = abs(brightness[split].means.mean() - train.means.mean())
        if away > DRIFT * max(train.means.std(), 1e-9):
            warnings.append(f"{split} images differ in brightness from train's by {away:.0f} of 255 on average")
    return warnings


def _balance_lines(findings: Findings) -> list[str]:
    rows: list[tuple[str, list[int]]] = [("images", list(findings.counts.values()))]
    if findings.patients is not None:
        rows.append(("patients", list(findings.patients.values())))
    for number, name in enumerate(findings.classes):
        rows.append((name, findings.balance[:, number].tolist()))
    width = max(len(name) for name, _ in rows)
    lines = [f"  {'':{width}}" + "".join(f"{split:>16}" for split in SPLITS)]
    totals = list(findings.counts.values())
    for name, numbers in rows:
        cells = []
        for value, total in zip(numbers, totals, strict=True):
            cells.append(f"{value}" if name in ("images", "patients") else f"{value} ({value / total:.0%})")
        lines.append(f"  {name:{width}}" + "".join(f"{cell:>16}" for cell in cells))
    return lines
