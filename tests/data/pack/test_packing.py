"""A source becomes one .npz in MedMNIST's layout: whole or not at all, the same bytes for the same content."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.data.pack import PackOptions, pack, packed
from raypatch.data.pack import packing as packing_module

from dicoms import write_dicom
from processes import wait_for

OPTIONS = PackOptions(size=16)


def picture(path: Path, seed: int, shape: tuple[int, ...] = (12, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def make_folder(root: Path, classes: str = "ab", count: int = 12) -> Path:
    for number, name in enumerate(classes):
        for index in range(count):
            picture(root / name / f"{index:02}.png", 100 * number + index)
    return root


def test_a_folder_of_classes_is_a_dataset(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own")
    (source / "a" / "._00.png").write_bytes(b"\x00\x05\x16\x07")
    (source / "a" / "Thumbs.db").write_bytes(b"x")
    (source / ".DS_Store").write_bytes(b"x")
    said: list[str] = []
    out = pack(source, tmp_path / "own.npz", OPTIONS, say=said.append)
    info = inspect_npz(out)
    assert (info.classes, info.size, info.channels, sum(info.counts)) == (("a", "b"), 16, 1, 24)
    assert json.loads(str(info.rule))["shape"] == "pad"
    with np.load(out) as arrays:
        assert sorted([*arrays["train_ids"], *arrays["val_ids"], *arrays["test_ids"]])[0] == "a/00.png"
        labels = np.array([name[0] == "b" for name in arrays["train_ids"]])
        assert np.array_equal(arrays["train_labels"][:, 0], labels)
    assert any("too small to say much" in line for line in said)


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own")
    first = pack(source, tmp_path / "one.npz", OPTIONS, say=bool).read_bytes()
    assert pack(source, tmp_path / "two.npz", OPTIONS, say=bool).read_bytes() == first
    other = pack(source, tmp_path / "three.npz", PackOptions(size=16, seed=1), say=bool).read_bytes()
    assert other != first


@pytest.mark.slow  # starts two processes that import torch
def test_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "own", count=40)
    alone = pack(source, tmp_path / "one.npz", OPTIONS, say=bool).read_bytes()
    monkeypatch.setattr("raypatch.data.pack.decode.WORTH_WORKERS", 1)
    monkeypatch.setattr("raypatch.data.pack.decode.available_cores", lambda: 2)
    assert pack(source, tmp_path / "two.npz", OPTIONS, say=bool).read_bytes() == alone


def test_masks_lie_beside_images_in_the_same_geometry(tmp_path: Path) -> None:
    for name in ("ill", "well"):
        for index in range(12):
            values = np.full((10, 20), 40, dtype=np.uint8)
            mask = np.zeros((10, 20), dtype=np.uint8)
            left = index % 8
            values[2:8, left : left + 8] = 255
            mask[2:8, left : left + 8] = 255
            for kind, array in (("images", values), ("masks", mask)):
                path = tmp_path / "own" / kind / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    out = pack(tmp_path / "own", tmp_path / "own.npz", PackOptions(size=40), say=bool)
    with np.load(out) as arrays:
        assert set(np.unique(arrays["train_masks"])) == {0, 1}
        assert np.array_equal(arrays["train_masks"] == 1, arrays["train_images"] > 147)
        assert not arrays["train_images"][:, :10].any()  # black above, since the aspect is kept
    (tmp_path / "own" / "masks" / "ill" / "3.png").unlink()
    with pytest.raises(DataError, match=r"lacks the masks of 1 of 24 images: images/ill/3\.png"):
        pack(tmp_path / "own", tmp_path / "two.npz", OPTIONS, say=bool)


def test_masks_without_classes_are_packed_too(tmp_path: Path) -> None:
    for index in range(12):
        picture(tmp_path / "own" / "images" / f"{index}.png", index)
        mask = tmp_path / "own" / "labels" / f"{index}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((12, 10), index % 3, np.uint8)).save(mask)
    with np.load(pack(tmp_path / "own", tmp_path / "own.npz", OPTIONS, say=bool)) as arrays:
        assert "train_labels" not in arrays
        assert set(np.unique(arrays["train_masks"])) == {0, 1, 2}


def test_given_splits_stay_and_missing_ones_are_dealt_from_train(tmp_path: Path) -> None:
    make_folder(tmp_path / "own" / "Training", count=20)
    make_folder(tmp_path / "own" / "test", count=3)
    said: list[str] = []
    with np.load(pack(tmp_path / "own", tmp_path / "own.npz", OPTIONS, say=said.append)) as arrays:
        assert len(arrays["test_ids"]) == 6
        assert len(arrays["train_ids"]) + len(arrays["val_ids"]) == 40
        assert all(name.startswith("test/") for name in arrays["test_ids"])
    assert "val is not given: 4 images were moved there from train" in said


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", ["decode_all", "make_splits", "write_dataset"])
def test_a_kill_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    source = make_folder(tmp_path / "own")
    real = getattr(packing_module, step)

    def killed(*args, **kwargs):
        real(*args, **kwargs)
        raise Killed

    out = tmp_path / "packed" / "own.npz"
    with monkeypatch.context() as patch:
        patch.setattr(packing_module, step, killed)
        with pytest.raises(Killed):
            pack(source, out, OPTIONS, say=bool)
    assert list(out.parent.iterdir()) == []
    # A kill -9 cleans nothing: what it left is in nobody's way.
    left = out.with_name(".own.npz.packing-x1")
    left.mkdir()
    (left / "images").write_bytes(b"half")
    inspect_npz(pack(source, out, OPTIONS, say=bool))
    assert [path.name for path in out.parent.iterdir()] == ["own.npz"]


def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own")
    out = pack(source, tmp_path / "own.npz", OPTIONS, say=bool)
    before = out.read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        pack(source, out, PackOptions(size=8), say=bool)
    assert out.read_bytes() == before
    assert pack(source, out, PackOptions(size=8), say=bool, overwrite=True).read_bytes() != before


def test_a_source_is_packed_once_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = make_folder(tmp_path / "own")
    first = packed(source, OPTIONS, say=bool)
    moment = first.stat().st_mtime_ns
    said: list[str] = []
    assert packed(source, OPTIONS, say=said.append) == first
    assert first.stat().st_mtime_ns == moment
    assert "is packed already" in said[0]
    os.utime(source / "a" / "00.png")
    assert packed(source, OPTIONS, say=bool) == first  # the content counts, not its time
    picture(source / "a" / "00.png", 999)
    assert packed(source, OPTIONS, say=bool) != first


def test_broken_files_are_listed_or_left_out(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own")
    whole = (source / "a" / "01.png").read_bytes()
    (source / "a" / "01.png").write_bytes(whole[: len(whole) // 2])
    (source / "b" / "02.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 24 images cannot be read.*--skip-broken") as refused:
        pack(source, tmp_path / "own.npz", OPTIONS, say=bool)
    assert "01.png is no picture that can be read" in str(refused.value)
    assert "02.png is empty" in str(refused.value)
    said: list[str] = []
    out = pack(source, tmp_path / "own.npz", PackOptions(size=16, skip_broken=True), say=said.append)
    assert sum(inspect_npz(out).counts) == 22
    assert any("2 images that cannot be read are left out" in line for line in said)


def _one_class(source: Path) -> None:
    make_folder(source, classes="a")


def _empty_class(source: Path) -> None:
    make_folder(source)
    (source / "c").mkdir()


def _mixed_channels(source: Path) -> None:
    make_folder(source)
    picture(source / "a" / "colour.png", 1, (12, 10, 3))


def _no_classes(source: Path) -> None:
    picture(source / "0.png", 0)


def _nothing(source: Path) -> None:
    source.mkdir()


def _without_pixels(source: Path) -> None:
    make_folder(source)
    write_dicom(source / "a" / "report.dcm", None, Modality="SR")


def _wide(source: Path) -> None:
    make_folder(source)
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(source / "a" / "deep.png")


REFUSED = {
    "one class": (_one_class, "one class only, a"),
    "empty class": (_empty_class, "class folders without images: c"),
    "mixed channels": (_mixed_channels, r"24 images are grey and 1 in colour; in colour: a/colour\.png.*--channels"),
    "no classes": (_no_classes, "1 image without classes"),
    "nothing": (_nothing, "holds no images"),
    "no pixels": (_without_pixels, r"report\.dcm is DICOM without pixels \(modality SR\)"),
    "no white": (_wide, r"deep\.png holds values up to 3000.*--intensity window"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_sources_are_refused_with_the_way_out(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    make(tmp_path / "own")
    with pytest.raises(DataError, match=message):
        pack(tmp_path / "own", tmp_path / "own.npz", OPTIONS, say=bool)
    assert not (tmp_path / "own.npz").exists()


PACK = """
import sys
from pathlib import Path
from raypatch.data.pack import PackOptions, decode, pack
decode.WORTH_WORKERS = 1
decode.available_cores = lambda: 2
pack(Path(sys.argv[1]), Path(sys.argv[2]), PackOptions(size=16))
"""


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"loky.backend.popen" in command_of(int(child))]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow  # starts processes that import torch
def test_a_kill_9_ends_the_workers_and_the_next_packing_clears_up(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "own", count=200)
    out = tmp_path / "packed" / "own.npz"
    process = subprocess.Popen([sys.executable, "-c", PACK, str(source), str(out)], stdout=subprocess.DEVNULL)
    wait_for(lambda: list(out.parent.glob(".own.npz.packing-*/images")), process, every=0.001)
    workers = workers_of(process.pid)
    process.kill()
    process.wait()
    assert len(workers) == 2
    assert not out.exists()
    assert list(out.parent.glob(".own.npz.packing-*"))
    wait_for(lambda: not any(b"loky" in command_of(worker) for worker in workers))
    inspect_npz(pack(source, out, OPTIONS, say=bool))
    assert [path.name for path in out.parent.iterdir()] == ["own.npz"]
