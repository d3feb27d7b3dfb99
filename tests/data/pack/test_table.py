"""A table with a row per image: any delimiter, columns guessed or told, labels with gaps, uncertain and several."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypatch.data.layout.npz import DataError
from raypatch.data.pack import PackOptions, parse_columns
from raypatch.data.pack.sources.kinds import list_source


def make_table(folder: Path, lines: list[str], *, images: int = 4, name: str = "table.csv") -> Path:
    for number in range(images):
        path = folder / "images" / f"i{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)
    table = folder / name
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def listed(table: Path, **options: object) -> list[tuple]:
    options["columns"] = parse_columns(str(options.get("columns", "")))
    listing = list_source(table, PackOptions(**options))
    return [(item.image.path.name, item.label, item.patient, item.split) for item in listing.items]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_are_guessed_with_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["age", "img_id", "diagnostic", "patient_id", "set"],
        ["7", "i0.png", "MEL", "007", "train"],
        ["", "i1", "NEV", "8", "valid"],
        ["9", "old/place/images/i2.png", "MEL", "", "Test"],
    ]
    table = make_table(tmp_path, [delimiter.join(row) for row in rows])
    assert listed(table) == [
        ("i0.png", "MEL", "007", "train"),
        ("i1.png", "NEV", "8", "val"),
        ("i2.png", "MEL", None, "test"),
    ]


def test_columns_may_be_told_or_left_out(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,label,grade,patient", "i0.png,x,1.0,p", "i1.png,x,2.0,q"])
    assert listed(table, columns="label=grade,patient=-") == [("i0.png", "1", None, None), ("i1.png", "2", None, None)]
    with pytest.raises(DataError, match=r"has no column nothing \(--columns\); it has file, label"):
        listed(table, columns="label=nothing")
    with pytest.raises(ValueError, match="--columns 'lable=grade' must be ROLE=COLUMN"):
        listed(table, columns="lable=grade")


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,label", "i0.png,x", "i1.png,", "i2.png,NaN", "i3.png,y"])
    assert [row[1] for row in listed(table)] == ["x", "y"]
    assert any("2 rows without a label" in note for note in list_source(table, PackOptions()).notes)


def test_several_labels_and_uncertain_ones(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["Path,Edema,Fracture", "i0.png,1.0,", "i1.png,-1.0,0", "i2.png,0,1"])
    options = {"columns": "label=Edema+Fracture"}
    with pytest.raises(DataError, match=r"Edema holds -1, uncertain.*--uncertain"):
        listed(table, **options)
    labels = {"zero": [(1, 0), (0, 0), (0, 1)], "one": [(1, 0), (1, 0), (0, 1)], "drop": [(1, 0), (0, 1)]}
    for uncertain, expected in labels.items():
        assert [row[1] for row in listed(table, uncertain=uncertain, **options)] == expected
    single = listed(table, columns="label=Edema", uncertain="one")
    assert [row[1] for row in single] == ["1", "1", "0"]


def test_labels_joined_in_one_cell(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,Finding Labels", "i0.png,Edema|Mass", "i1.png,No Finding", "i2.png,Mass"])
    assert [row[1] for row in listed(table)] == [(1, 1), (0, 0), (0, 1)]


def test_masks_are_found_beside_or_by_column(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,label,mask", "i0.png,x,m0", "i1.png,y,m1"])
    for number in range(2):
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks" / f"m{number}.png")
    masks = [item.mask.path.name for item in list_source(table, PackOptions()).items]
    assert masks == ["m0.png", "m1.png"]


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    rows = [f"gone{number}.png,{'xy'[number % 2]}" for number in range(9)]
    table = make_table(tmp_path, ["file,label", "i0.png,x", "i1.png,y", *rows])
    with pytest.raises(DataError, match=r"9 of 11 files .* gone0\.png, .*gone4\.png and 4 more.*--skip-broken"):
        listed(table)
    assert len(listed(table, skip_broken=True)) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["file,label", "i0.png,x", "i0.png,y", "i1.png,y"], r"1 file in rows that contradict.*i0\.png \(x and y\)"),
        (["file,label,split", "i0.png,x,train", "i1.png,y,later"], "split column split holds 'later'"),
        (["file,label", "i0.png,x", "i1.png,x"], "label column label holds x; two classes"),
        (["file,kind of", "i0.png,x", "i1.png,y"], "which column is the label"),
        (["number,label", "0,x", "1,y"], "no column names files"),
        (["file,label"], "holds no rows"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(make_table(tmp_path, rows))


def test_a_repeated_row_is_told_and_left_out(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,label", "i0.png,x", "i0.png,x", "i1.png,y"])
    assert len(listed(table)) == 2


def test_a_name_in_two_folders_is_no_name(tmp_path: Path) -> None:
    table = make_table(tmp_path, ["file,label", "i0.png,x", "i1.png,y"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "i0.png").write_bytes((tmp_path / "images" / "i0.png").read_bytes())
    with pytest.raises(DataError, match=r"'i0\.png' names 2 files"):
        listed(table)
