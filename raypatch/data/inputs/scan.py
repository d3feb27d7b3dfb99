"""One picture or volume as its file holds it, before any rule of intensity or shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")
DICOM = (".dcm", ".dicom", ".ima")
HDF5 = (".h5", ".hdf5")
_DICOM_MAGIC_AT, _DICOM_MAGIC = 128, b"DICM"
_HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class ImageFiles:
    """Where one image lies.

    name: what it is called. files: its file, or those of a DICOM series. row: of an .h5 file that
    holds many images, else None.
    """

    name: str
    files: tuple[Path, ...]
    row: int | None = None

    @property
    def path(self) -> Path:
        """Its file, or the first of its series: for messages."""
        return self.files[0]


@dataclass(frozen=True)
class Look:
    """What is seen of an image before it is read.

    edges: (H, W) or (D, H, W). channels: 1 or 3. modality: DICOM's (CT, MR, ...), `NIfTI`, or empty
    for pictures. deep: kind (integer, float) and highest value of one with more than 8 bits whose
    file does not say what is white. eight_bits: whether its values are those of a screen.
    """

    edges: tuple[int, ...]
    channels: int
    modality: str = ""
    deep: tuple[str, float] | None = None
    eight_bits: bool = False


@dataclass(frozen=True)
class Scan:
    """An image as its file has it.

    values: (H, W), (D, H, W) or, uint8, (H, W, 3). spacing: mm along each axis, None where the
    file does not say. window: the values shown as black and as white, where the file says.
    inverted: whether its lowest value is white. in_colour: whether the last axis is red, green, blue.
    """

    values: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    window: tuple[float, float] | None = None
    inverted: bool = False
    in_colour: bool = False


def kind_of_values(values: NDArray[Any]) -> str:
    """Return float or integer."""
    return "float" if values.dtype.kind == "f" else "integer"


def format_of(path: Path) -> str | None:
    """Return picture, nifti, dicom or hdf5 by the file's name, or by its first bytes where it has no suffix."""
    name = path.name.lower()
    for suffixes, kind in ((PICTURES, "picture"), (VOLUMES, "nifti"), (DICOM, "dicom"), (HDF5, "hdf5")):
        if name.endswith(suffixes):
            return kind
    return "dicom" if _may_be_dicom(name) and _has_dicom_magic(path) else None


def _may_be_dicom(name: str) -> bool:
    """Whether a name has no suffix, or ends as DICOM's own names do: in numbers (IM-0001, 1.2.840.113)."""
    suffix = name.rpartition(".")[2]
    return "." not in name or suffix.isdecimal()


def _has_dicom_magic(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            stream.seek(_DICOM_MAGIC_AT)
            return stream.read(len(_DICOM_MAGIC)) == _DICOM_MAGIC
    except OSError:
        return False


def is_hidden(path: Path) -> bool:
    """Whether it is what systems leave beside files: ._x, .DS_Store, Thumbs.db, __MACOSX."""
    return path.name.startswith(".") or path.name.lower() in _HIDDEN
