"""Large files say how far they are read, once somebody asked to be told."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from raypatch.data.layout.archive import Archive
from raypatch.data.layout.npz import count_new_images
from raypatch.storage import reading
from raypatch.storage.own_files import own_file_id

Told = list[tuple[str, int, int]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    said: Told = []
    monkeypatch.setattr(reading, "_new_listener", reading._new_listener)
    reading.tell_reading(lambda: lambda *stage: said.append(stage))
    return said


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.npz"
    np.savez(path, train_images=np.arange(5 << 20).astype(np.uint8).reshape(5, 1024, 1024), few=np.arange(3))
    return path


def test_a_digest_is_told_megabyte_by_megabyte_and_is_that_of_the_content(own: Path, told: Told) -> None:
    found = own_file_id(own)
    assert found == f"file:own@{hashlib.sha256(own.read_bytes()).hexdigest()[:12]}"
    assert [done for _, done, _ in told[:5]] == [1, 2, 3, 4, 5]
    assert told[-1] == ("MB of own.npz read:", 5, 5)


def test_arrays_are_told_whole_and_in_parts(own: Path, told: Told) -> None:
    with Archive(own) as archive:
        whole = archive.array("train_images")
        assert told[-1] == ("MB of train_images of own.npz read:", 5, 5)
        told.clear()
        parts = list(archive.chunks("train_images", 2))
    assert np.array_equal(np.concatenate(parts), whole)
    assert {done for _, done, _ in told} >= {2, 4, 5}


def test_images_are_counted_without_being_read(own: Path, told: Told) -> None:
    assert count_new_images(own, "train") == ("train", 5)
    assert not told


def test_a_short_reading_prints_nothing(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from raypatch.cli.main import _lines

    listener = _lines()
    listener("MB of own.npz read:", 1, 5)
    listener("MB of own.npz read:", 5, 5)
    assert capsys.readouterr() == ("", "")
