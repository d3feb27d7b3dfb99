"""Model families: one file each, behind one protocol.

A family of one's own is model: module:NAME.
"""

from raypatch.models.families.protocol import Activations, AttentionTokens, Family, MapLayer, TimmEntry
from raypatch.models.families.registry import find_family

__all__ = ["Activations", "AttentionTokens", "Family", "MapLayer", "TimmEntry", "find_family"]
