"""NIfTI volumes as uint8, in one orientation whichever way the file stores them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypatch.data.npz import DataError
from raypatch.storage.impostors import explain_impostor


def read_volume(path: Path) -> NDArray[np.uint8]:
    """Read a NIfTI volume as (z, y, x) uint8: z towards the head, y towards the front,
    x towards the patient's right.

    The file's affine says how its axes lie, and they are turned and flipped to the nearest of these
    (RAS+, nibabel's closest canonical); a file that says nothing (qform and sform code 0) is taken
    to lie so already. Its lowest value becomes 0, its highest 255. Needs nibabel. Raises DataError
    for several volumes and for values that are not finite.
    """
    try:
        import nibabel
    except ImportError as error:
        raise DataError("reading .nii files needs nibabel: pip install 'raypatch[nifti]'") from error
    broken: tuple[type[Exception], ...] = (OSError, ValueError, TypeError, EOFError, IndexError)
    broken += (nibabel.filebasedimages.ImageFileError, nibabel.orientations.OrientationError)
    try:
        volume: Any = nibabel.load(path)
        if _says_orientation(volume):
            volume = nibabel.as_closest_canonical(volume)  # type: ignore[no-untyped-call]
        values = np.asanyarray(volume.dataobj)
    except broken as error:
        raise DataError(explain_impostor(path) or f"{path} is no NIfTI volume that can be read: {error}") from error
    return _stretch(path, _only_volume(path, values)).transpose(2, 1, 0).copy()


def _says_orientation(volume: Any) -> bool:
    header = volume.header
    return bool(header["qform_code"] or header["sform_code"])


def _only_volume(path: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """The (x, y, z) of a file that holds one grey volume, further axes of length 1 dropped."""
    if values.dtype.kind not in "iufb":
        raise DataError(f"{path} holds {values.dtype} values; raypatch reads grey volumes of plain numbers")
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > 3:
        raise DataError(
            f"{path} holds {int(np.prod(values.shape[3:]))} volumes, its shape is {values.shape};"
            " save the one that is meant by itself, such as with nibabel's image.slicer[..., 0]"
        )
    if values.ndim < 3 or 0 in values.shape:
        raise DataError(f"{path} holds no volume: its shape is {values.shape}, where (x, y, z) is needed")
    return values.astype(np.float32)


def _stretch(path: Path, values: NDArray[np.float32]) -> NDArray[np.uint8]:
    undefined = int(np.count_nonzero(~np.isfinite(values)))
    if undefined:
        raise DataError(
            f"{path} holds NaN or infinity in {undefined} of {values.size} voxels;"
            " give those values others first, such as with numpy.nan_to_num"
        )
    low, high = float(values.min()), float(values.max())
    # A volume of one value has no range: all of it becomes 0.
    scaled = 255 * (values - low) / max(high - low, 1e-9)
    stretched: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return stretched
