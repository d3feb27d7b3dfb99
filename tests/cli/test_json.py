"""What scripts read of a report and of a comparison, and what is said of a folder that is no run folder."""

import json
from pathlib import Path

import pytest

from commands import Command
from made_runs import made_configs, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, patch_sizes in (("one", [14, 7]), ("other", [14])):
        configs = made_configs(["breastmnist"], patch_sizes, 2, epochs=2, lr=1e-4 if name == "one" else 1e-3)
        made.append(str(write_run(folder / name, configs, images=60)))
    return made


def test_report_as_json_has_the_answer_in_numbers_and_every_table(raypatch: Command, runs: list[str]) -> None:
    code, out, _ = raypatch("report", runs[0], "--format", "md", "--json")
    assert code == 0
    told = json.loads(out)
    (answer,) = told["answers"]
    assert answer["answer"]["baseline"] == "14"
    assert answer["answer"]["levels"] == ["14", "7"]
    assert answer["verdict"]
    rows = told["tables"]["main"]["rows"]
    assert [row["level"] for row in rows] == ["14", "7", "7+14"]
    assert 0 < rows[0]["test_balanced_accuracy_mean"] < 1
    # Of an ensemble no interval is known: null, since JSON has no NaN.
    assert rows[2]["test_balanced_accuracy_low"] is None
    assert all(Path(path).is_file() for path in told["written"]["files"])


def test_compare_as_json_has_a_row_per_common_cell(raypatch: Command, runs: list[str]) -> None:
    code, out, _ = raypatch("compare", *runs, "--json")
    assert code == 0
    told = json.loads(out)
    (row,) = told["rows"]
    means = [row[f"test_balanced_accuracy_mean_{side}"] for side in ("first", "second")]
    assert row["difference"] == pytest.approx(means[1] - means[0])
    assert row["low"] < row["difference"] < row["high"]
    assert "lr: 0.0001 in one; 0.001 in other." in told["notes"]


def test_a_run_is_not_compared_with_itself(raypatch: Command, runs: list[str]) -> None:
    code, _, err = raypatch("compare", runs[0], f"{runs[0]}/../one")
    assert code == 2
    assert "are the same run folder: give two" in err


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["resume"], ["clean"], ["report"]])
def test_no_run_folder_is_said_to_be_none(raypatch: Command, tmp_path: Path, words: list[str]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        code, out, err = raypatch(words[0], str(folder), *words[1:])
        assert (code, out) == (2, "")
        assert f"{folder} is no run folder" in err
