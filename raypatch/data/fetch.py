"""Official files, downloaded once and held against the catalog."""

import http.client
import shutil
import urllib.error
from pathlib import Path

from raypatch.data.catalog import DatasetInfo, dataset_info
from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.data.source import by_hand, data_folder, locate, md5_of
from raypatch.storage.files import hold_lock


def verify(name: str, *, data_dir: Path | None = None) -> Path:
    """Check the official file of `name`: MD5, then shape,
    classes and counts against the catalog; return its path.

    Raises DataError for any difference.
    """
    known = dataset_info(name)
    path = locate(known.name, data_dir=data_dir)
    found = inspect_npz(path)
    for fact in ("counts", "size", "channels", "dimensions"):
        if getattr(found, fact) != getattr(known, fact):
            raise DataError(f"{path}: {fact} is {getattr(found, fact)}, the catalog says {getattr(known, fact)}")
    if len(found.classes) != len(known.classes):
        raise DataError(
            f"{path}: has {len(found.classes)} classes, the catalog says {len(known.classes)}",
        )
    return path


def fetch(name: str, *, data_dir: Path | None = None, progress: bool = True) -> Path:
    """Return the official file of `name`, downloaded from where the
    medmnist package says if it is not there yet.

    Safe when several processes ask at once: one downloads, the others wait. The file appears whole
    and with the right MD5 or not at all. A different file of that name is never overwritten.
    progress: show a bar on stderr. Raises DataError with the way out when it cannot be had.
    """
    info = dataset_info(name)
    path = data_folder(data_dir) / f"{info.name}.npz"
    try:
        if info.made_up or path.exists():
            return locate(info.name, data_dir=data_dir)
        path.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(path.with_name(f".{path.name}.lock"), wait=True):
            # Another process may have downloaded it while this one waited for the lock.
            if not path.exists():
                _download(info, path, progress=progress)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        # An URLError keeps what happened as its reason.
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download {info.name} ({reason}); `raypatch data fetch {info.name}` tries again."
            f" {by_hand(info, path)}"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot save {path.name} in {path.parent}: {error.strerror};"
            " choose a writable folder with room by --data-dir or $MEDMNIST_ROOT"
        ) from error
    return locate(info.name, data_dir=data_dir)


def _download(info: DatasetInfo, path: Path, *, progress: bool) -> None:
    """Download into a folder beside `path`, check the MD5, then move into place;
    call it while holding the lock.

    The medmnist class itself is not used for it: it then reads the whole training split into memory
    (13 GB for pathmnist_224) and turns every failure, Ctrl-C included, into one RuntimeError.
    """
    try:
        import medmnist
    except ImportError as error:
        raise DataError(f"downloading needs the medmnist package (pip install medmnist). {by_hand(info, path)}") from (
            error
        )
    from torch.hub import download_url_to_file

    flag, _, size = info.name.partition("_")
    url = medmnist.INFO[flag][f"url_{size}" if size else "url"]
    aside = path.with_name(f".{path.name}.download")
    # What a killed download left.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        download_url_to_file(url, str(aside / path.name), progress=progress)
        found = md5_of(aside / path.name)
        if found != info.md5:
            raise DataError(
                f"the download of {info.name} from {url} is damaged: MD5 {found}, not {info.md5};"
                f" `raypatch data fetch {info.name}` tries again. {by_hand(info, path)}"
            )
        (aside / path.name).replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
