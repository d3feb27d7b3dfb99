import contextlib
import hashlib
import http.server
import resource
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raypatch.data.catalog import catalog, dataset_info
from raypatch.data.check.twins import find_twins
from raypatch.data.fetch import fetch, verify
from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.data.source import data_folder, describe, load_split, locate
from raypatch.storage.own_files import own_file_id

COUNTS = {"train": 6, "val": 3, "test": 4}


@pytest.fixture
def content(tmp_path):
    """Bytes of a small file in MedMNIST's layout, too random to be packed."""
    random = np.random.default_rng(0)
    path = tmp_path / "made" / "small.npz"
    path.parent.mkdir()
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 64, 64), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez_compressed(path, **arrays)
    return path.read_bytes()


@pytest.fixture
def own(tmp_path, content):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    return path, own_file_id(path)


def stand_in(content: bytes):
    """BreastMNIST's facts as if `content` were its official file."""
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return replace(dataset_info("breast"), md5=digest, counts=(6, 3, 4), size=64)


@pytest.fixture
def official(monkeypatch, content):
    """Makes `content` the official breastmnist.npz."""
    info = stand_in(content)
    for module in ("source", "fetch"):
        looked_up = f"raypatch.data.{module}.dataset_info"
        monkeypatch.setattr(looked_up, lambda name: info if "breast" in name else dataset_info(name))
    return info


class Server(http.server.ThreadingHTTPServer):
    """Serves one answer and counts how often it was asked for."""

    body = b""
    status = 200
    missing = 0
    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests += 1
        time.sleep(0.3)
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body) + self.server.missing))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, content):
    """Where BreastMNIST is downloaded from."""
    medmnist = pytest.importorskip("medmnist")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body = content
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        monkeypatch.setitem(medmnist.INFO["breastmnist"], "url", f"http://127.0.0.1:{running.server_port}/breast.npz")
        yield running
        running.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_is_the_argument_then_the_variable_then_the_package_s(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "variable"))
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert data_folder() == tmp_path / "variable"
    monkeypatch.delenv("MEDMNIST_ROOT")
    assert data_folder() == Path.home() / ".medmnist"


def test_download_is_checked_and_lies_alone(official, server, content, tmp_path):
    folder = tmp_path / "data"
    assert fetch("breast", data_dir=folder, progress=False) == folder / "breastmnist.npz"
    assert (folder / "breastmnist.npz").read_bytes() == content
    assert names(folder) == ["breastmnist.npz"]
    assert verify("breast", data_dir=folder) == folder / "breastmnist.npz"


def test_what_is_there_is_not_downloaded_again(official, server, tmp_path):
    fetch("breast", data_dir=tmp_path, progress=False)
    fetch("breast", data_dir=tmp_path, progress=False)
    assert server.requests == 1


def test_progress_goes_to_stderr_only_if_wanted(official, server, tmp_path, capfd):
    fetch("breast", data_dir=tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")
    fetch("breast", data_dir=tmp_path / "loud")
    out, err = capfd.readouterr()
    assert out == ""
    assert "100%" in err


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import medmnist
from raypatch.data import fetch, source
from raypatch.data.catalog import dataset_info
url, md5, folder = sys.argv[1:]
medmnist.INFO["breastmnist"]["url"] = url
fetch.dataset_info = source.dataset_info = lambda name: replace(dataset_info(name), md5=md5)
print("ready", flush=True)
sys.stdin.readline()
fetch.fetch("breastmnist", data_dir=Path(folder), progress=False)
"""


def test_two_processes_at_once_download_once(official, server, tmp_path):
    folder = tmp_path / "data"
    url = f"http://127.0.0.1:{server.server_port}/breast.npz"
    command = [sys.executable, "-c", CHILD, url, str(official.md5), str(folder)]
    with contextlib.ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        children = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(2)]
        for child in children:
            assert child.stdout.readline() == "ready\n"
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.wait(timeout=60) for child in children] == [0, 0]
    assert server.requests == 1
    assert names(folder) == ["breastmnist.npz"]


def test_leftover_of_a_killed_download_does_not_disturb(official, server, tmp_path):
    aside = tmp_path / ".breastmnist.npz.download"
    aside.mkdir()
    (aside / "breastmnist.npz.partial").write_bytes(b"half")
    fetch("breast", data_dir=tmp_path, progress=False)
    assert "breastmnist.npz" in names(tmp_path)
    assert not aside.exists()


def test_without_a_network_the_message_says_which_file_to_put_where(official, monkeypatch, tmp_path):
    medmnist = pytest.importorskip("medmnist")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(medmnist.INFO["breastmnist"], "url", "http://127.0.0.1:1/breast.npz")
    with pytest.raises(DataError, match="cannot download breastmnist") as caught:
        fetch("breast", data_dir=tmp_path / "data", progress=False)
    message = str(caught.value)
    assert "`raypatch data fetch breastmnist` tries again" in message
    assert f"put breastmnist.npz (MD5 {official.md5}) into {tmp_path / 'data'}" in message
    assert names(tmp_path / "data") == []


def test_a_file_gone_from_the_server_is_no_dataset(official, server, tmp_path):
    server.status = 404
    with pytest.raises(DataError, match=r"cannot download breastmnist \(Not Found\)"):
        fetch("breast", data_dir=tmp_path / "data", progress=False)
    assert names(tmp_path / "data") == []


@pytest.mark.parametrize("damage", ["altered", "cut off"])
def test_a_damaged_download_is_thrown_away(official, server, tmp_path, damage):
    if damage == "altered":
        server.body = server.body[:-1] + b"?"
    else:
        server.body, server.missing = server.body[:1000], 100
    with pytest.raises(DataError, match=r"breastmnist.*tries again"):
        fetch("breast", data_dir=tmp_path / "data", progress=False)
    assert names(tmp_path / "data") == []


def test_a_full_disk_leaves_nothing_behind(official, server, tmp_path):
    """The limit on the size of a file stands for the disk: the same call fails, with the same kind of error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(DataError, match=r"cannot save breastmnist.npz in .*: File too large; choose a writable"):
            fetch("breast", data_dir=tmp_path / "data", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path / "data") == []


def test_a_folder_that_cannot_be_made_is_named(official, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot save breastmnist.npz in .*file/data: .*choose a writable folder"):
        fetch("breast", data_dir=tmp_path / "file" / "data", progress=False)


def test_a_different_file_is_refused_and_never_overwritten(official, tmp_path):
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(b"mine")
    for ask in (fetch, verify):
        with pytest.raises(DataError, match=r"is not the official breastmnist: its MD5 is") as caught:
            ask("breast", data_dir=tmp_path)
        assert f"--dataset {path}" in str(caught.value)
        assert "rename or remove this one and run `raypatch data fetch breastmnist`" in str(caught.value)
    assert path.read_bytes() == b"mine"


def test_a_missing_file_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"`raypatch data fetch dermamnist` downloads it.*MD5 0744692d"):
        load_split("dermamnist", "train", data_dir=tmp_path)


def test_a_file_that_changes_is_checked_again(official, content, tmp_path):
    path = tmp_path / "breastmnist.npz"
    path.write_bytes(content)
    assert locate("breastmnist", data_dir=tmp_path) == path
    path.write_bytes(content + b"more")
    with pytest.raises(DataError, match="not the official"):
        locate("breastmnist", data_dir=tmp_path)


def test_verify_compares_with_the_catalog(official, content, tmp_path, monkeypatch):
    (tmp_path / "breastmnist.npz").write_bytes(content)
    monkeypatch.setattr("raypatch.data.fetch.dataset_info", lambda name: replace(official, counts=(6, 3, 5)))
    with pytest.raises(DataError, match=r"counts is \(6, 3, 4\), the catalog says \(6, 3, 5\)"):
        verify("breast", data_dir=tmp_path)


def test_own_file_is_described_and_loaded_by_its_id(own):
    path, name = own
    info = describe(name, files={name: path})
    assert (info.name, info.task, info.counts, info.size) == (name, "binary", (6, 3, 4), 64)
    loaded = load_split(name, "test", files={name: path})
    assert loaded.images.shape == (4, 64, 64)
    assert loaded.labels.tolist() == [0, 1, 0, 1]


def test_own_file_may_move_but_not_change(own, tmp_path):
    path, name = own
    moved = path.rename(tmp_path / "moved.npz")
    assert locate(name, files={name: moved}) == moved
    moved.write_bytes(moved.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"has changed since it was named file:own@"):
        locate(name, files={name: moved})


def test_own_file_that_is_gone_or_unknown_is_explained(own, tmp_path):
    _, name = own
    with pytest.raises(DataError, match=r"absent.npz, which was file:own@.*--dataset FILE"):
        locate(name, files={name: tmp_path / "elsewhere" / "absent.npz"})
    with pytest.raises(DataError, match=r"absent.npz, .*its content now lies in .*own.npz: give --dataset .*own.npz"):
        locate(name, files={name: tmp_path / "absent.npz"})
    with pytest.raises(DataError, match=r"not known where file:own@.* lies"):
        locate(name, files={})


def test_loading_writes_nothing(own):
    path, name = own
    before = names(path.parent)
    load_split(name, "train", files={name: path})
    assert names(path.parent) == before


def test_facts_of_a_known_name_need_no_file(tmp_path):
    assert describe("dermamnist", data_dir=tmp_path).counts == (7007, 1003, 2005)


def test_phantoms_need_no_file(tmp_path):
    loaded = load_split("phantom2d_rgb", "val", data_dir=tmp_path)
    assert loaded.images.shape[1:] == (28, 28, 3)
    for ask in (fetch, verify):
        with pytest.raises(DataError, match="made in memory"):
            ask("phantom2d", data_dir=tmp_path)


@pytest.mark.real_data
def test_official_files_are_what_the_catalog_says(medmnist_root):
    present = [name for name in catalog() if (medmnist_root / f"{name}.npz").exists()]
    assert present
    for name in present:
        assert verify(name, data_dir=medmnist_root) == medmnist_root / f"{name}.npz"
        info = dataset_info(name)
        for split, count in zip(("train", "val", "test"), info.counts, strict=True):
            loaded = load_split(name, split, data_dir=medmnist_root)
            assert len(loaded.images) == len(loaded.labels) == count
            assert loaded.labels.max() < len(info.classes)


@pytest.mark.real_data
def test_altered_official_file_is_refused_by_name_and_taken_as_own(medmnist_root):
    folder = medmnist_root.parent / "altered"
    path = folder / "pneumoniamnist.npz"
    if not path.exists():
        pytest.skip("no altered file beside the official ones")
    for ask in (
        lambda: verify("pneumonia", data_dir=folder),
        lambda: load_split("pneumoniamnist", "val", data_dir=folder),
    ):
        with pytest.raises(DataError, match=rf"not the official pneumoniamnist.*--dataset {path}"):
            ask()
    assert inspect_npz(path).counts == (3882, 524, 624)
    name = own_file_id(path)
    assert len(load_split(name, "val", files={name: path}).labels) == 524
    assert sum(twin.split == "val" and twin.equal for twin in find_twins(path)) == 8


@pytest.mark.real_data
def test_real_file_is_downloaded_with_its_real_md5(medmnist_root, server, tmp_path):
    server.body = (medmnist_root / "breastmnist.npz").read_bytes()
    path = fetch("breast", data_dir=tmp_path, progress=False)
    assert verify("breast", data_dir=tmp_path) == path
