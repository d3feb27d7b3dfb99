"""A source that is named where a dataset is wanted: packed once, found again by its content."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from raypatch.data.layout.archive import DataError
from raypatch.data.pack.decode import OnProgress
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.packing import pack
from raypatch.data.pack.sources.kinds import list_source
from raypatch.data.pack.sources.listing import Item, Say
from raypatch.machine.environment import home
from raypatch.storage.files import LockedError
from raypatch.storage.reading import file_digest

PACKING = 1
"""How sources are packed; another number where the same source would give other pixels."""


def packed(
    source: Path,
    options: PackOptions | None = None,
    *,
    say: Say = print,
    on_progress: OnProgress = lambda *_: None,
) -> Path:
    """Return the .npz of a source, packed with usual choices unless it is there already; say where.

    It lies in ~/.cache/raypatch, named by a digest over every file, label, patient and split, so
    that a changed source is packed anew. Raises DataError.
    """
    options = options or PackOptions()
    listing = list_source(source, options)
    folder = home() / ".cache" / "raypatch" / "packed"
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", source.resolve().stem)[:40]
    out = folder / f"{stem}-{_digest(listing.items, options, on_progress)}.npz"
    if out.exists():
        say(f"{source} is packed already: {out}")
        return out
    say(f"packing {source} with usual choices; for others: raypatch data pack {source} --out FILE.npz")
    try:
        pack(source, out, options, say=say, on_progress=on_progress)
    except LockedError as error:
        raise DataError(f"{source} is being packed by another process; try again when it is done ({error})") from error
    say(f"packed: {out}")
    return out


def _digest(items: Sequence[Item], options: PackOptions, on_progress: OnProgress) -> str:
    """Of all that decides the packed file."""
    digest = hashlib.blake2b(f"{PACKING} {options.as_text()}".encode(), digest_size=8)
    read: set[Path] = set()
    for number, item in enumerate(items):
        on_progress("compared with what is packed already", number, len(items))
        said = (item.image.name, item.image.row, item.label, item.patient, item.split)
        digest.update(json.dumps(said).encode())
        for file in (*item.image.files, *(item.mask.files if item.mask else ())):
            # An .h5 file holds many images, and is read once.
            if file not in read:
                read.add(file)
                digest.update(_content(file))
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    try:
        return bytes.fromhex(file_digest(file, hashlib.sha256()))
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
