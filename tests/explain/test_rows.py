"""The tables that `raypatch explain` leaves: read as written, refused when damaged."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from raypatch.results import DamagedFileError
from raypatch.results.explained import DistanceRow, read_rows, write_rows

ROW = DistanceRow("breastmnist", "b-p4-s0", "4", layer=1, head=2, distance=2.5, image_size=28, images=3)


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    unknown = DistanceRow("breastmnist", "b-p4-s0", "4", layer=1, head=3, distance=math.nan, image_size=28, images=3)
    write_rows(tmp_path / "rows.csv", DistanceRow, [ROW, unknown])
    first, second = read_rows(tmp_path / "rows.csv", DistanceRow)
    assert first == ROW
    assert math.isnan(second.distance)
    assert second.head == 3


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text[:-5], "image_size: Input should be a valid integer"),
        (lambda text: text[:-2], "images: Input should be a valid integer"),
        (lambda text: text.replace("distance", "far"), "distance: Field required"),
        (lambda text: text.replace("2.5", "wide"), "distance: Input should be a valid number"),
    ],
)
def test_a_damaged_table_says_where_and_what_to_do(tmp_path: Path, damage: Callable[[str], str], problem: str) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, DistanceRow, [ROW])
    path.write_text(damage(path.read_text()))
    with pytest.raises(DamagedFileError, match=f"{problem}.*run `raypatch explain` again"):
        read_rows(path, DistanceRow)
