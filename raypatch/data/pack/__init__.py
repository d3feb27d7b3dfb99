"""Own images packed into one .npz: folders, tables, DICOM, NIfTI, PatchCamelyon's .h5; split by patient."""

from raypatch.data.pack.cache import packed
from raypatch.data.pack.options import PackOptions, parse_intensity
from raypatch.data.pack.packing import pack
from raypatch.data.pack.table import parse_columns

__all__ = ["PackOptions", "pack", "packed", "parse_columns", "parse_intensity"]
