"""Which image goes to train, val or test: as the source says, or dealt; and what is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.sources.listing import Item
from raypatch.data.pack.split.deal import deal_images
from raypatch.words import agree, counted, first_of

TRAIN, VAL, TEST = range(3)
SMALL_CLASS = 10
"""Patients, or images where nobody is known, of a class in a split below which a score says little."""


@dataclass(frozen=True)
class Splits:
    """part: (N,) index into SPLITS. fold: (N,), None without folds. notes: what is told."""

    part: NDArray[np.int64]
    fold: NDArray[np.int64] | None
    notes: tuple[str, ...]


def make_splits(
    items: Sequence[Item], classes: NDArray[np.int64], patients: Sequence[str] | None, options: PackOptions
) -> Splits:
    """Return the split of each item.

    classes: (N, C) of 0 and 1. patients: of each item, None where nobody is known; without them
    each image is one by itself. Raises DataError where the options ask for what the source does not say.
    """
    by = _how(items, patients, options)
    groups = np.arange(len(items))
    if patients is not None and by != "image":
        groups = np.unique(np.array(patients), return_inverse=True)[1].astype(np.int64)
    notes: list[str] = []
    if options.folds:
        return _make_folds(classes, groups, options, notes)
    if by in ("given", "mended"):
        part = _given(items, classes, groups, options, notes)
        if by == "mended":
            part = _mend(part, groups, notes)
        elif patients is not None:
            _tell_torn(part, np.array(patients), notes)
    else:
        part = deal_images(classes, groups, options.shares, options.seed)
        what = "patient" if by == "patient" else "image"
        notes.append(f"split by {what}, stratified, seed {options.seed}, shares {'/'.join(map(str, options.shares))}")
        part = _have_all_in_train(part, classes, groups, notes)
    part = _fill_empty(part, classes, groups, notes)
    _require_all_splits(part, groups)
    return Splits(part, None, tuple(notes))


def _how(items: Sequence[Item], patients: Sequence[str] | None, options: PackOptions) -> str:
    """How images are split: given, mended, patient or image."""
    said = any(item.split is not None for item in items)
    if options.split in ("given", "mended") and not said:
        raise DataError(f"--split {options.split}: the source has no train, val and test; take patient or image")
    if options.split in ("patient", "mended") and patients is None:
        raise DataError(
            f"--split {options.split}: the source names no patients; name their column: --columns patient=COLUMN"
        )
    if options.split != "auto":
        return options.split
    if said and not options.folds:
        return "given"
    return "image" if patients is None else "patient"


def _make_folds(
    classes: NDArray[np.int64], groups: NDArray[np.int64], options: PackOptions, notes: list[str]
) -> Splits:
    """Folds of equal size: fold 0 is stored as test, 1 as val, the others as train."""
    count = options.folds
    if len(np.unique(groups)) < count:
        raise DataError(f"--folds {count}: there {_there_are(groups)} to deal")
    fold = deal_images(classes, groups, (1 / count,) * count, options.seed)
    part = np.full(len(fold), TRAIN)
    part[fold == 1] = VAL
    part[fold == 0] = TEST
    notes.append(
        f"{count} folds, stratified, seed {options.seed}: --set fold={','.join(map(str, range(count)))} runs them;"
        " fold k is test, the one after it val"
    )
    for number in range(count):
        in_train = (fold != number) & (fold != (number + 1) % count)
        if (classes[in_train].sum(axis=0) == 0).any():
            raise DataError(f"--folds {count}: a class would be missing from train in fold {number}; take fewer folds")
    return Splits(part, fold, tuple(notes))


def _given(
    items: Sequence[Item],
    classes: NDArray[np.int64],
    groups: NDArray[np.int64],
    options: PackOptions,
    notes: list[str],
) -> NDArray[np.int64]:
    """The source's own split; one that it lacks is dealt from train, patients whole."""
    unsaid = [item.image.name for item in items if item.split is None]
    if unsaid:
        raise DataError(
            f"{counted(len(unsaid), 'image')} {agree(len(unsaid), 'has', 'have')} no split, others have:"
            f" {first_of(unsaid)}; add it, or --split image"
        )
    part = np.array([SPLITS.index(item.split) for item in items if item.split is not None])
    notes.append("split as given")
    for split, share in ((TEST, options.shares[2]), (VAL, options.shares[1])):
        if (part == split).any():
            continue
        train = np.flatnonzero(part == TRAIN)
        if not len(train):
            raise DataError("the source has no train images: name the split so, or make a new one with --split image")
        taken = deal_images(classes[train], groups[train], (1 - share, share), options.seed) == 1
        part[train[taken]] = split
        notes.append(f"{SPLITS[split]} is not given: {_moved(taken.sum())} there from train")
    return part


def _mend(part: NDArray[np.int64], groups: NDArray[np.int64], notes: list[str]) -> NDArray[np.int64]:
    """Move each patient who is on two sides to the one with most of the images, train if equal."""
    mended = part.copy()
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        counts = np.bincount(part[members], minlength=3)
        mended[members] = int(counts.argmax())
    moved = int((mended != part).sum())
    patients = len(np.unique(groups[mended != part]))
    notes.append(
        f"{counted(moved, 'image')} of {counted(patients, 'patient')} {agree(moved, 'was', 'were')} moved to the split"
        " that has most of the patient's images"
    )
    return mended


def _tell_torn(part: NDArray[np.int64], patients: NDArray[np.str_], notes: list[str]) -> None:
    sides: dict[str, set[int]] = {}
    for patient, split in zip(patients.tolist(), part.tolist(), strict=True):
        sides.setdefault(patient, set()).add(split)
    torn = [patient for patient, splits in sides.items() if len(splits) > 1]
    if torn:
        notes.append(
            f"WARNING: {counted(len(torn), 'patient')} {agree(len(torn), 'is', 'are')} in more than one split:"
            f" {first_of(torn)}; the test is then easier than it should be. --split mended moves each to one side,"
            " --split patient deals anew"
        )


def _have_all_in_train(
    part: NDArray[np.int64], classes: NDArray[np.int64], groups: NDArray[np.int64], notes: list[str]
) -> NDArray[np.int64]:
    """What was never seen cannot be predicted: each class has a group in train."""
    for number in range(classes.shape[1]):
        holders = classes[:, number] == 1
        if holders.any() and not (holders & (part == TRAIN)).any():
            group = groups[holders][0]
            part[groups == group] = TRAIN
            notes.append(f"class number {number} is so small that all of a patient's images of it were moved to train")
    return part


def _fill_empty(
    part: NDArray[np.int64], classes: NDArray[np.int64], groups: NDArray[np.int64], notes: list[str]
) -> NDArray[np.int64]:
    """Give a split without images, as shares of few leave it, the smallest group that train can spare."""
    for split in (TEST, VAL):
        if (part == split).any():
            continue
        names, sizes = np.unique(groups[part == TRAIN], return_counts=True)
        for group in names[np.argsort(sizes, kind="stable")]:
            kept = (part == TRAIN) & (groups != group)
            # What was never seen cannot be predicted.
            if kept.any() and (classes[kept].any(axis=0) == classes.any(axis=0)).all():
                part = np.where(groups == group, split, part)
                notes.append(f"{SPLITS[split]} was empty: {_moved((groups == group).sum())} there from train")
                break
    return part


def _require_all_splits(part: NDArray[np.int64], groups: NDArray[np.int64]) -> None:
    for number, split in enumerate(SPLITS):
        if not (part == number).any():
            of_patients = len(np.unique(groups)) < len(groups)
            way_out = "--split image, which lets a patient be on two sides and flatters the scores"
            raise DataError(
                f"no image is left for {split}: there {_there_are(groups)} to deal, and train keeps some of each class;"
                f" give more{f', or {way_out}' if of_patients else ''}"
            )


def _there_are(groups: NDArray[np.int64]) -> str:
    """How many patients, or images where each is one by itself."""
    count = len(np.unique(groups))
    what = "patient" if count < len(groups) else "image"
    return f"{agree(count, 'is', 'are')} {counted(count, what)}"


def _moved(images: int) -> str:
    return f"{counted(images, 'image')} {agree(images, 'was', 'were')} moved"


def describe_splits(
    part: NDArray[np.int64], classes: NDArray[np.int64], names: Sequence[str], patients: Sequence[str] | None
) -> list[str]:
    """Return a table of images and patients by split and class, and the classes that are too small."""
    rows = [("", [*SPLITS, "all"])]
    everything = [part == number for number in range(3)] + [np.full(len(part), True)]
    who = None if patients is None else np.array(patients)
    rows.append(("images", [str(int(mask.sum())) for mask in everything]))
    if who is not None:
        rows.append(("patients", [str(len(np.unique(who[mask]))) for mask in everything]))
    small = []
    # A single one stands for images with masks alone.
    has_classes = len(names) > 1
    for number, name in enumerate(names if has_classes else ()):
        has = classes[:, number] == 1
        cells = []
        for column, mask in enumerate(everything):
            images = int((mask & has).sum())
            count = images if who is None else len(np.unique(who[mask & has]))
            cells.append(str(images) if who is None else f"{images} ({count})")
            if column < 3 and count < SMALL_CLASS:
                small.append(f"{name} in {SPLITS[column]} ({count})")
        rows.append((name, cells))
    width = max(len(name) for name, _ in rows)
    lines = []
    for name, cells in rows:
        lines.append(f"  {name:{width}}" + "".join(f"{cell:>14}" for cell in cells))
    if who is not None and has_classes:
        lines.append("  (of a class: images, and its patients in brackets)")
    if small:
        lines.append(f"  too small to say much, below {SMALL_CLASS}: {first_of(small, most=8)}")
    return lines


def tell_patients_of_two_labels(items: Sequence[Item]) -> str | None:
    """Return a note on patients with images of different labels, who are kept; None where there are none."""
    labels: dict[str, set[object]] = {}
    for item in items:
        if item.patient is not None:
            labels.setdefault(item.patient, set()).add(item.label)
    several = [patient for patient, found in labels.items() if len(found) > 1]
    if not several:
        return None
    have = agree(len(several), "has", "have")
    return f"{counted(len(several), 'patient')} {have} images of several labels, which is kept: {first_of(several)}"
