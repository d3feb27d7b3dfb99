"""A reader that goes away, as `head` does: a sweep goes on, any other command ends quietly."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class _LastingStream:
    """A stream whose writes are lost, not refused, once nobody reads it any more; else the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lasting():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._lasting():
            self._stream.flush()

    @contextlib.contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            to_nowhere(self._stream)
            if self._stream is sys.__stdout__:
                print("raypatch: nobody reads the output any more; the sweep goes on", file=sys.stderr, flush=True)


def to_nowhere(stream: TextIO) -> None:
    """Send what a stream still holds, and all that comes, where nobody needs to read it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def outlive_readers() -> Iterator[None]:
    """Let what runs inside go on when nobody reads its output any more."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _LastingStream(sys.stdout), _LastingStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
