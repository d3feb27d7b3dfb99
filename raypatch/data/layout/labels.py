"""The rules of MedMNIST's layout for labels, class names and what else lies beside images,
and the way out for arrays that break them.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from raypatch.data.catalog import SPLITS, LabelKind, Split
from raypatch.data.layout.archive import Archive

_UNPRINTABLE = {"Cc", "Cs", "Cn", "Zl", "Zp"}
"""Unicode's control characters, halves of surrogates, unassigned ones and line ends."""


def read_labels(archive: Archive, split: Split, count: int) -> NDArray[np.int64]:
    """A split's labels as (N,) class numbers or (N, L) columns of 0 and 1, for `count` images."""
    key = f"{split}_labels"
    shape, dtype = archive.header(key)
    if dtype.kind not in "iu":
        way_out = "convert with labels.astype('int64')"
        if dtype.kind in "US":
            way_out = "number the classes with numpy.unique(labels, return_inverse=True)"
        raise archive.error(key, f"is {dtype} but must be integer; {way_out}")
    if len(shape) not in (1, 2) or 0 in shape[1:]:
        raise archive.error(
            key,
            f"has shape {shape}, must be (N,), (N, 1) or, for multi-label, (N, L)",
        )
    if shape[0] != count:
        raise archive.error(key, f"has {shape[0]} rows for {count} images; each image needs one")
    values = archive.array(key).astype(np.int64)
    if values.min() < 0:
        raise archive.error(key, f"holds {values.min()}, out of range; number the classes 0 to K-1")
    return values.reshape(-1) if values.ndim == 1 or values.shape[1] == 1 else values


def read_task(archive: Archive, labels: dict[Split, NDArray[np.int64]]) -> tuple[LabelKind, int]:
    """Return the task and the number of classes that the labels, and an optional `task`, speak of."""
    train = labels["train"]
    for split in SPLITS:
        if labels[split].shape[1:] != train.shape[1:]:
            raise archive.error(
                f"{split}_labels",
                f"has shape {labels[split].shape} where train_labels has {train.shape}",
            )
    said = _read_said_task(archive)
    if train.ndim == 2:
        _check_columns(archive, labels, said)
        return "multilabel", train.shape[1]
    count = _count_classes(archive, labels)
    found: LabelKind = "binary" if count == 2 else "multiclass"
    if said == "ordinal":
        return "ordinal", count
    if said not in (None, found):
        raise archive.error(
            "task",
            f"is {said}, but the labels are class numbers of {count} classes: {found}",
        )
    return found, count


def _read_said_task(archive: Archive) -> LabelKind | None:
    if "task" not in archive:
        return None
    shape, dtype = archive.header("task")
    said = f"{dtype} of shape {shape}"
    if dtype.kind == "U" and shape == ():
        said = str(archive.array("task"))
    if said not in get_args(LabelKind):
        raise archive.error("task", f"is {said}, must be one of {', '.join(get_args(LabelKind))}")
    return cast(LabelKind, said)


def _check_columns(
    archive: Archive,
    labels: dict[Split, NDArray[np.int64]],
    said: LabelKind | None,
) -> None:
    """See that several columns are labels that go together, and not one class each."""
    for split in SPLITS:
        if (labels[split] > 1).any():
            raise archive.error(
                f"{split}_labels",
                "has several columns, so each must be 0 or 1 (multi-label)",
            )
    if said not in (None, "multilabel"):
        raise archive.error(
            "task",
            f"is {said}, but the labels have several columns; give class numbers, (N, 1)",
        )
    # Columns of which one holds in every row: the classes of a single question, most likely.
    one_each = all((values.sum(axis=1) == 1).all() for values in labels.values())
    if one_each and said is None:
        raise archive.error(
            "train_labels",
            "is one-hot: each row has exactly one 1, in all splits. If each image has one class, save"
            " labels.argmax(axis=1) of each split; if several labels may go together, say so with"
            " task=numpy.array('multilabel') in the file",
        )


def _count_classes(archive: Archive, labels: dict[Split, NDArray[np.int64]]) -> int:
    # Train must have them all: what was never seen cannot be predicted.
    present = np.unique(labels["train"])
    count = int(present[-1]) + 1
    if len(present) == 1:
        raise archive.error(
            "train_labels",
            f"holds only class {present[0]}; at least two classes are needed",
        )
    if len(present) < count:
        absent = int((present != np.arange(len(present))).argmax())
        raise archive.error(
            "train_labels",
            f"skips class {absent}; number the classes 0 to K-1 and have each in train",
        )
    for split in SPLITS[1:]:
        if labels[split].max() >= count:
            raise archive.error(
                f"{split}_labels",
                f"holds class {labels[split].max()}, out of range:"
                f" train_labels has classes 0 to {count - 1};"
                " move an image of that class to train or remove the class",
            )
    return count


def read_class_names(archive: Archive, count: int) -> tuple[str, ...]:
    """Names in label order: from `class_names`, else the class numbers.

    Each is printable and stands for one class.
    """
    if "class_names" not in archive:
        return tuple(str(number) for number in range(count))
    shape, dtype = archive.header("class_names")
    if dtype.kind != "U" or shape != (count,):
        raise archive.error("class_names", f"is {dtype} of shape {shape}, must be {count} strings")
    return check_names(archive, "class_names")


def check_names(archive: Archive, key: str) -> tuple[str, ...]:
    """Return the names of classes that an array holds. Raises DataError for names that cannot be told or printed."""
    shape, dtype = archive.header(key)
    if dtype.kind != "U" or len(shape) != 1:
        raise archive.error(key, f"is {dtype} of shape {shape}, must be a name for each class")
    names = tuple(map(str, archive.array(key)))
    # Names go into tables, CSV files and web pages, where a line end or a control character breaks.
    for name in names:
        bad = [letter for letter in name if unicodedata.category(letter) in _UNPRINTABLE]
        if bad or not name.strip():
            what = f"the unprintable character {bad[0]!r}" if bad else "nothing to print"
            raise archive.error(
                key,
                f"holds {name!r} with {what}; give each class a name of one line",
            )
    # Names that differ in their spaces alone look the same to a reader.
    name, times = Counter(" ".join(name.split()) for name in names).most_common(1)[0]
    if times > 1:
        raise archive.error(
            key,
            f"has {name!r} {times} times; give each class its own name (an array of {dtype} cuts longer ones off)",
        )
    return names


def read_patients(archive: Archive, splits: Sequence[Split], counts: Sequence[int]) -> NDArray[np.str_] | None:
    """The patient on each image of some splits, as text; None where a split does not say.

    From `<split>_patients`, else from `<split>_groups`, as files of older versions name them.
    """
    patients = read_texts(archive, [f"{split}_patients" for split in splits], counts)
    if patients is None:
        patients = read_texts(archive, [f"{split}_groups" for split in splits], counts)
    return patients


def read_texts(archive: Archive, keys: Sequence[str], counts: Sequence[int]) -> NDArray[np.str_] | None:
    """What `keys` call the images, as text, such as their patients; None where one of them is not there.

    counts: images of each.
    """
    if any(key not in archive for key in keys):
        return None
    texts = []
    for key, count in zip(keys, counts, strict=True):
        texts.append(_read_names(archive, key, count).astype(np.str_))
    return np.concatenate(texts)


def _read_names(archive: Archive, key: str, count: int) -> NDArray[Any]:
    shape, dtype = archive.header(key)
    if dtype.kind not in "iuUS" or shape != (count,):
        raise archive.error(key, f"is {dtype} of shape {shape}, must be {count} whole numbers or strings, one an image")
    return archive.array(key)


def read_folds(archive: Archive, split: Split, count: int) -> NDArray[np.int64] | None:
    """The fold of each of `count` images; None where the file has none."""
    key = f"{split}_folds"
    if key not in archive:
        return None
    shape, dtype = archive.header(key)
    if dtype.kind not in "iu" or shape != (count,):
        raise archive.error(key, f"is {dtype} of shape {shape}, must be {count} whole numbers: the fold of each image")
    return archive.array(key).astype(np.int64)


def read_rule(archive: Archive) -> str | None:
    """The JSON of the rule by which the images were packed; None where the file does not say."""
    if "rule" not in archive:
        return None
    shape, dtype = archive.header("rule")
    if dtype.kind != "U" or shape != ():
        raise archive.error("rule", f"is {dtype} of shape {shape}, must be one string, as `raypatch data pack` writes")
    return str(archive.array("rule"))


def read_mirror_safe(archive: Archive) -> bool:
    """Whether the file says that a mirror image keeps its label;
    nothing in the images tells, so the default is no.
    """
    if "mirror_safe" not in archive:
        return False
    shape, dtype = archive.header("mirror_safe")
    if dtype.kind != "b" or shape != ():
        raise archive.error("mirror_safe", f"is {dtype} of shape {shape}, must be one bool")
    return bool(archive.array("mirror_safe"))
