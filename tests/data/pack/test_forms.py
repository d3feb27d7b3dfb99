"""The data sets of arXiv 2303.07034 by their usual file forms, on made files of these forms: each packs as docs say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raypatch.data.layout.npz import DataError, inspect_npz
from raypatch.data.pack import PackOptions, pack, parse_columns


def _picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


def _pack(source: Path, out: Path, **options: object) -> Path:
    columns = parse_columns(str(options.pop("columns", "")))
    return pack(source, out, PackOptions(size=8, columns=columns, **options), say=bool)  # type: ignore[arg-type]


def test_aptos_is_a_table_of_grades_beside_its_pictures(tmp_path: Path) -> None:
    lines = ["id_code,diagnosis"]
    for number in range(50):
        _picture(tmp_path / "train_images" / f"{number:012x}.png", number)
        lines.append(f"{number:012x},{number % 5}")
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    info = inspect_npz(_pack(tmp_path / "train.csv", tmp_path / "aptos.npz", ordinal=True))
    assert (info.task, info.classes, sum(info.counts)) == ("ordinal", ("0", "1", "2", "3", "4"), 50)


def test_isic_has_a_column_for_each_class(tmp_path: Path) -> None:
    names = ("MEL", "NV", "BCC")
    lines = [",".join(["image", *names])]
    for number in range(30):
        _picture(tmp_path / "ISIC_2019_Training_Input" / f"ISIC_{number:07}.jpg", number)
        held = ["1.0" if place == number % 3 else "0.0" for place in range(3)]
        lines.append(",".join([f"ISIC_{number:07}", *held]))
    table = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    table.write_text("\n".join(lines) + "\n")
    info = inspect_npz(_pack(table, tmp_path / "isic.npz", columns="image=image,label=MEL/NV/BCC"))
    assert (info.task, info.classes, sum(info.counts)) == ("multiclass", ("BCC", "MEL", "NV"), 30)
    table.write_text(table.read_text() + "ISIC_0000001,1.0,1.0,0.0\n")
    with pytest.raises(DataError, match="exclude each other"):
        _pack(table, tmp_path / "wrong.npz", columns="image=image,label=MEL/NV/BCC")


def test_chexpert_has_several_labels_that_may_be_uncertain(tmp_path: Path) -> None:
    lines = ["Path,Sex,Cardiomegaly,Edema"]
    for number in range(40):
        name = f"train/patient{number // 2:05}/study1/view{number % 2 + 1}_frontal.jpg"
        _picture(tmp_path / "CheXpert-v1.0-small" / name, number)
        cells = ("1.0", "0.0", "-1.0", "")
        lines.append(f"CheXpert-v1.0-small/{name},Male,{cells[number % 4]},{cells[number // 4 % 4]}")
    table = tmp_path / "train.csv"
    table.write_text("\n".join(lines) + "\n")
    columns = "image=Path,label=Cardiomegaly+Edema"
    with pytest.raises(DataError, match="--uncertain zero, one or drop"):
        _pack(table, tmp_path / "never.npz", columns=columns)
    positive = {}
    for uncertain in ("zero", "one"):
        out = _pack(table, tmp_path / f"{uncertain}.npz", columns=columns, uncertain=uncertain)
        assert inspect_npz(out).task == "multilabel"
        with np.load(out) as arrays:
            positive[uncertain] = sum(int(arrays[f"{split}_labels"].sum()) for split in ("train", "val", "test"))
    assert positive["one"] - positive["zero"] == 18


def test_ddsm_is_folders_of_classes(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("test", 8)):
        for number in range(count):
            kind = ("benign", "malignant", "normal")[number % 3]
            _picture(tmp_path / "ddsm" / split / kind / f"{number}.png", number)
    for number in range(6):
        kind = ("benign", "malignant", "normal")[number % 3]
        _picture(tmp_path / "ddsm" / "val" / kind / f"{number}.png", 100 + number)
    info = inspect_npz(_pack(tmp_path / "ddsm", tmp_path / "ddsm.npz"))
    assert (info.task, info.classes) == ("multiclass", ("benign", "malignant", "normal"))
    assert info.counts == (12, 6, 8)
