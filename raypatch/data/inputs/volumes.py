"""NIfTI volumes, in one orientation whichever way the file stores them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.inputs.scan import Look, Scan
from raypatch.data.layout.archive import DataError
from raypatch.storage.impostors import explain_impostor


def look_at_nifti(path: Path) -> Look:
    """See what a NIfTI file holds, by its header."""
    volume = _load(path)
    edges = tuple(reversed(volume.shape[:3]))
    return Look(edges, 1, modality="NIfTI", eight_bits=_is_plain_uint8(volume))


def read_nifti(path: Path, *, dimensions: int, frame: int | None = None) -> Scan:
    """Read a NIfTI volume as (z, y, x): z towards the head, y towards the front,
    x towards the patient's right; or, of dimensions 2, its only slice as (H, W).

    The file's affine says how its axes lie, and they are turned and flipped to the nearest of these
    (RAS+, nibabel's closest canonical); a file that says nothing (qform and sform code 0) is taken
    to lie so already. A slice is shown as radiologists do: the head or the front on top, the
    patient's right or front on the left. frame: which volume of several. Needs nibabel. Raises
    DataError for several volumes and for values that are not finite.
    """
    import nibabel

    volume = _load(path)
    is_uint8 = _is_plain_uint8(volume)
    try:
        if _says_orientation(volume):
            volume = nibabel.as_closest_canonical(volume)
        values = np.asanyarray(volume.dataobj)
    except _broken() as error:
        raise _unreadable(path, error) from error
    values = _only_volume(path, values, frame)
    _require_finite(path, values)
    spacing = tuple(float(step) for step in reversed(volume.header.get_zooms()[:3]))
    scan = Scan(
        values.transpose(2, 1, 0).copy(),
        spacing=spacing if min(spacing) > 0 else None,
        window=(0.0, 255.0) if is_uint8 else None,
    )
    return only_slice(path, scan) if dimensions == 2 else scan


def only_slice(path: Path, volume: Scan) -> Scan:
    """Return the only slice of a volume (z, y, x) as a picture. Raises DataError where it has more."""
    thin = [axis for axis, edge in enumerate(volume.values.shape) if edge == 1]
    if not thin:
        raise DataError(f"{path} holds a volume of {volume.values.shape}, where a picture, of one slice, is needed")
    axis = thin[0]
    spacing = volume.spacing
    if spacing is not None:
        spacing = spacing[:axis] + spacing[axis + 1 :]
    # All axes run from foot, back and left: a screen shows them from their other end.
    picture = volume.values[::-1, ::-1, ::-1].squeeze(axis)
    return replace(volume, values=np.ascontiguousarray(picture), spacing=spacing)


def write_mask_like(path: Path, mask: NDArray[np.uint8], out: Path) -> None:
    """Write a mask (H, W) of the slice that `read_nifti` reads from `path`, in the same place in space (RAS+)."""
    import nibabel

    volume = _load(path)
    if _says_orientation(volume):
        volume = nibabel.as_closest_canonical(volume)
    axis = next(place for place, edge in enumerate(reversed(volume.shape[:3])) if edge == 1)
    # As `only_slice` turns it, the other way round.
    planes = np.expand_dims(mask, axis)[::-1, ::-1, ::-1].transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(planes), volume.affine), out)


def _broken() -> tuple[type[Exception], ...]:
    import nibabel

    broken: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, EOFError, IndexError)
    return (*broken, nibabel.filebasedimages.ImageFileError, nibabel.orientations.OrientationError)


def _load(path: Path) -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise DataError("reading .nii files needs nibabel: pip install 'raypatch[medical]'") from error
    try:
        return nibabel.load(path)
    except _broken() as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(explain_impostor(path) or f"{path} is no NIfTI volume that can be read: {error}")


def _says_orientation(volume: Any) -> bool:
    header = volume.header
    return bool(header["qform_code"] or header["sform_code"])


def _is_plain_uint8(volume: Any) -> bool:
    """Whether its values are bytes as a screen shows them: uint8 without a slope of its own."""
    scaled = (volume.dataobj.slope, volume.dataobj.inter) != (1.0, 0.0)
    return bool(volume.get_data_dtype() == np.uint8 and not scaled)


def _only_volume(path: Path, values: NDArray[Any], frame: int | None) -> NDArray[Any]:
    """The (x, y, z) of a file that holds one grey volume, further axes of length 1 dropped."""
    if values.dtype.kind not in "iufb":
        raise DataError(f"{path} holds {values.dtype} values; raypatch reads grey volumes of plain numbers")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 4 and frame is not None:
        if frame >= values.shape[3]:
            raise DataError(f"{path} holds {values.shape[3]} volumes, so there is no frame {frame}: they count from 0")
        values = values[..., frame]
    if values.ndim > 3:
        raise DataError(
            f"{path} holds {int(np.prod(values.shape[3:]))} volumes, its shape is {values.shape};"
            " name the one that is meant with --frame, or save it"
            " by itself, such as with nibabel's image.slicer[..., 0]"
        )
    if values.ndim < 3 or 0 in values.shape:
        raise DataError(f"{path} holds no volume: its shape is {values.shape}, where (x, y, z) is needed")
    return values


def _require_finite(path: Path, values: NDArray[Any]) -> None:
    undefined = int(np.count_nonzero(~np.isfinite(values)))
    if undefined:
        raise DataError(
            f"{path} holds NaN or infinity in {undefined} of {values.size} voxels;"
            " give those values others first, such as with numpy.nan_to_num"
        )
