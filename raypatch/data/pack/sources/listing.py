"""What a source holds, before anything is read: images with label, patient, split and mask."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from raypatch.data.catalog import Split
from raypatch.data.inputs.scan import ImageFiles, format_of, is_hidden
from raypatch.data.layout.archive import DataError
from raypatch.words import first_of

Say = Callable[[str], object]

MASK_FOLDERS = ("masks", "mask", "labels", "segmentations", "segmentation", "annotations", "labelstr")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "imagestr")
_WORDS: dict[Split, str] = {
    "train": "train training tr trn",
    "val": "val valid validation dev",
    "test": "test testing ts tst",
}
_SPLIT_WORDS: dict[str, Split] = {}
for _split, _words in _WORDS.items():
    _SPLIT_WORDS |= dict.fromkeys(_words.split(), _split)


@dataclass(frozen=True)
class Item:
    """One image of a source.

    label: its class by name, of several labels a 0 or 1 for each of Listing.columns, None where
    there is none. patient, split: None where the source does not say. mask: its segmentation.
    """

    image: ImageFiles
    label: str | tuple[int, ...] | None = None
    patient: str | None = None
    split: Split | None = None
    mask: ImageFiles | None = None

    def without_patient(self) -> "Item":
        """The same image, of nobody known."""
        return replace(self, patient=None)


@dataclass
class Listing:
    """root: what names are relative to. columns: names of several labels that go together, else empty.

    notes: what a user should know of how the source was read, a sentence each.
    """

    root: Path
    items: list[Item]
    columns: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def split_of_word(word: str) -> Split | None:
    """Return the split that a folder or a cell means; None where it means none."""
    return _SPLIT_WORDS.get(word.strip().lower())


def image_files(folder: Path) -> list[Path]:
    """Return the files below a folder that may be images, sorted; hidden ones and those in hidden folders are not."""
    found = []
    for path in sorted(folder.iterdir()):
        if is_hidden(path):
            continue
        if path.is_dir():
            found += image_files(path)
        elif format_of(path) in ("picture", "nifti", "dicom"):
            found.append(path)
    return found


def without_suffix(path: Path) -> str:
    """The name of a file without its suffix, .nii.gz being one."""
    name = path.name
    if name.lower().endswith(".nii.gz"):
        return name[: -len(".nii.gz")]
    return path.stem


def pair_masks(items: list[Item], root: Path, masks: Path) -> list[Item]:
    """Return the items with the mask of each: the file at the same place below `masks`, whatever its suffix.

    root: what images lie below. Also found: names that end in _mask, _seg or _segmentation. Raises
    DataError for images without a mask.
    """
    known: dict[str, Path] = {}
    for file in image_files(masks):
        known[_place(file, masks)] = file
    paired, missing = [], []
    for item in items:
        mask = known.get(_place(item.image.path, root))
        if mask is None:
            missing.append(item.image.name)
            continue
        paired.append(Item(item.image, item.label, item.patient, item.split, ImageFiles(mask.name, (mask,))))
    if missing:
        raise DataError(
            f"{masks} lacks the masks of {len(missing)} of {len(items)} images: {first_of(missing)};"
            " a mask lies at the same place below its folder and has its image's name"
        )
    return paired


def _place(file: Path, root: Path) -> str:
    """Where a file lies below `root`, without its suffix and what marks a mask."""
    stem = without_suffix(file)
    for ending in ("_mask", "_seg", "_segmentation"):
        stem = stem.removesuffix(ending)
    return (file.parent.relative_to(root) / stem).as_posix()
