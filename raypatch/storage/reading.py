"""Large files read to their end, with a word from time to time on how far it is.

A command says once who is told (`tell_reading`); what reads need not know. Nobody is told by default.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

OnProgress = Callable[[str, int, int], object]
"""What is being done, and how many of how many are."""

_PIECE = 1 << 20
"""Bytes that are read at once for a digest: a megabyte, in which progress is counted."""


def _nobody() -> OnProgress:
    return lambda *_: None


_new_listener: Callable[[], OnProgress] = _nobody


def tell_reading(new_listener: Callable[[], OnProgress]) -> None:
    """Let each reading of a file, from now on in this process, tell a new listener of its own how far it is."""
    global _new_listener
    _new_listener = new_listener


class Told:
    """A stream of a known length that is read from its start, and says how much of it was. what: that is read."""

    def __init__(self, stream: IO[bytes], what: str, length: int) -> None:
        self._stream = stream
        self._what = f"MB of {what} read:"
        self._length = length
        self._read = 0
        self._tell = _new_listener()

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or all that are left."""
        content = self._stream.read(size)
        self._read += len(content)
        self._tell(self._what, self._read // _PIECE, self._length // _PIECE)
        return content


def file_digest(path: Path, digest: "hashlib._Hash") -> str:
    """Return the hex digits of a digest, such as hashlib.sha256(), over the content of a file. Raises OSError."""
    with path.open("rb") as stream:
        told = Told(stream, path.name, path.stat().st_size)
        while piece := told.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
