"""What a file is that cannot be read: often another one stands in its place."""

from pathlib import Path

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
MAC_FORK = b"\x00\x05\x16\x07"


def explain_impostor(path: Path) -> str | None:
    """Say what stands in the place of the file that was wanted, and the way out;
    None when nothing is known of it.

    Knows pointers of git-lfs, web pages (of a failed download), the
    hidden `._` files of a Mac, and empty files.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError:
        return None
    if size == 0:
        return f"{path} is empty; copy or download it again"
    if start.startswith(LFS_POINTER):
        return (
            f"{path} is a git-lfs pointer of {size} bytes, not the file itself;"
            " fetch that with `git lfs pull` in its repository, or download it by itself"
        )
    if start.startswith(MAC_FORK):
        return f"{path} is what a Mac hides beside the real file; give the one without `._` before its name"
    # Behind a byte order mark and blank lines, which may stand before a page.
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return f"{path} is a web page of {size} bytes, not the file itself; the download failed: open it to see why"
    return None
