"""Images in any of the files that people keep them in, for packing and for prediction: one reader for both."""

from raypatch.data.inputs.reading import read_inputs
from raypatch.data.inputs.rule import InputRule
from raypatch.data.inputs.scan import PICTURES, VOLUMES

__all__ = ["PICTURES", "VOLUMES", "InputRule", "read_inputs"]
