"""From a source to an .npz in MedMNIST's layout: listed, looked at, read once, split, written, put in place."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from raypatch.data.inputs.rule import InputRule
from raypatch.data.layout.archive import DataError
from raypatch.data.pack.choose import choose_rule
from raypatch.data.pack.decode import OnProgress, Spool, decode_all, look_at_all
from raypatch.data.pack.options import PackOptions
from raypatch.data.pack.sources.kinds import list_source
from raypatch.data.pack.sources.listing import Item, Listing, Say
from raypatch.data.pack.split.labels import Labels, fill_patients, number_labels
from raypatch.data.pack.split.splits import Splits, describe_splits, make_splits, tell_patients_of_two_labels
from raypatch.data.pack.writer import Cases, Pixels, write_dataset
from raypatch.storage.files import hold_lock
from raypatch.words import agree, counted, first_of


def pack(
    source: Path,
    out: Path,
    options: PackOptions,
    *,
    say: Say = print,
    on_progress: OnProgress = lambda *_: None,
    overwrite: bool = False,
) -> Path:
    """Pack a source (see `list_source`) into the .npz `out`; return it.

    say: told what was found, chosen and left out, line by line. The file appears whole or not at
    all; what a killed packing left is removed by the next. The same source gives the same bytes.
    Raises DataError for a source that cannot be packed, listing what is wrong in it.
    """
    if out.suffix != ".npz":
        raise DataError(f"--out {out} must end in .npz")
    if out.exists() and not overwrite:
        raise DataError(f"{out} is there already: --overwrite replaces it")
    out.parent.mkdir(parents=True, exist_ok=True)
    listing = list_source(source, options)
    for note in listing.notes:
        say(note)
    with _workplace(out) as folder:
        items, rule = _look(listing, options, say, on_progress)
        say(_describe_rule(rule, len(items)))
        spool = _make_spool(folder, items, rule)
        broken, mask_values = decode_all(items, rule, spool, on_progress)
        whole = _without_broken(items, broken, options, say)
        kept = [items[row] for row in whole]
        labels = number_labels(kept, listing.columns)
        patients = fill_patients(kept, say)
        splits = make_splits(kept, labels.classes, patients, options)
        _tell(kept, labels, patients, splits, say)
        pixels = Pixels(spool, np.array(whole, dtype=np.int64), rule, mask_values)
        cases = Cases([item.image.name for item in kept], labels, patients, splits)
        write_dataset(folder / out.name, pixels, cases, options)
        (folder / out.name).replace(out)
    return out


@contextlib.contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on the same file system, held by one packing and gone at its end."""
    prefix = f".{out.name}.packing-"
    with hold_lock(out.with_name(f".{out.name}.lock")):
        # What a killed packing left.
        for left in out.parent.iterdir():
            if left.name.startswith(prefix):
                shutil.rmtree(left, ignore_errors=True)
        # Of a new name each time: a worker that outlives a killed packing must not write into the next one's images.
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _look(listing: Listing, options: PackOptions, say: Say, on_progress: OnProgress) -> tuple[list[Item], InputRule]:
    """The items that can be looked at, and the rule for them."""
    looks, broken = look_at_all(listing.items, on_progress)
    whole = _without_broken(listing.items, broken, options, say)
    items = [listing.items[row] for row in whole]
    seen = [look for look in looks if look is not None]
    return items, choose_rule(items, seen, options)


def _without_broken(items: Sequence[Item], broken: dict[int, str], options: PackOptions, say: Say) -> list[int]:
    """The positions of the items that are whole. Raises DataError, with the first of the others."""
    whole = [row for row in range(len(items)) if row not in broken]
    if not broken:
        return whole
    problems = "\n  ".join(list(broken.values())[:20])
    more = f"\n  and {len(broken) - 20} more" if len(broken) > 20 else ""
    if not options.skip_broken or not whole:
        raise DataError(
            f"{len(broken)} of {counted(len(items), 'image')} cannot be read; mend them, or leave them out with"
            f" --skip-broken:\n  {problems}{more}"
        )
    are = agree(len(broken), "is", "are")
    say(f"{counted(len(broken), 'image')} that cannot be read {are} left out:\n  {problems}{more}")
    return whole


def _make_spool(folder: Path, items: Sequence[Item], rule: InputRule) -> Spool:
    spatial = (len(items), *(rule.size,) * rule.dimensions)
    shape = (*spatial, 3) if rule.channels == 3 else spatial
    has_masks = [item.mask is not None for item in items]
    if any(has_masks) and not all(has_masks):
        without = [item.image.name for item in items if item.mask is None]
        have = agree(len(without), "has", "have")
        raise DataError(f"{len(without)} of {len(items)} images {have} no mask, others have: {first_of(without)}")
    spool = Spool(folder, shape, spatial if all(has_masks) else None)
    # Once as they were read, and once packed.
    needed = 2 * int(np.prod(shape, dtype=np.int64)) * (2 if spool.mask_shape else 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"packing takes up to {needed / 1e9:.1f} GB beside {folder.parent}, which has {free / 1e9:.1f} GB left;"
            " choose another place with --out, or a smaller --size"
        )
    spool.create()
    return spool


def _tell(items: Sequence[Item], labels: Labels, patients: Sequence[str] | None, splits: Splits, say: Say) -> None:
    for note in splits.notes:
        say(note)
    torn = tell_patients_of_two_labels(items) if labels.numbers is not None else None
    if torn:
        say(torn)
    for line in describe_splits(splits.part, labels.classes, labels.names, patients):
        say(line)


def _describe_rule(rule: InputRule, count: int) -> str:
    kind = "volumes" if rule.dimensions == 3 else ("pictures in colour" if rule.channels == 3 else "grey pictures")
    shape = "aspect kept, padded with black" if rule.shape == "pad" else "squeezed"
    step = f", {rule.spacing:g} mm per voxel" if rule.spacing else ""
    edges = " x ".join([str(rule.size)] * rule.dimensions)
    return f"{count} {kind} to {edges}, {shape}{step}; intensity {rule.intensity}"
