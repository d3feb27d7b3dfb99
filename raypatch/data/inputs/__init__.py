"""New images to predict on, from any of the files that people keep them in."""

from raypatch.data.inputs.reading import PICTURES, VOLUMES, read_inputs

__all__ = ["PICTURES", "VOLUMES", "read_inputs"]
