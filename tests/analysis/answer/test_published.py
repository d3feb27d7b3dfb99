"""A publication's table beside our scores: which cells meet, what the difference is, what is refused."""

from pathlib import Path

import pytest

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.answer.published import compare_published
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report_parts import compose_report, report_markdown
from raypatch.analysis.show.tables.published import published_notes, published_tables
from raypatch.study import Study
from raypatch.study import load_study as read_study

from made_runs import write_study

TABLE = """dataset,backbone,method,accuracy %,auc
BreastMNIST,tiny,finetune,50,0.5
breastmnist,small,finetune,60,
breastmnist,small,linear_probe,70,0.7
pneumoniamnist,small,finetune,80,0.8
"""
STUDY = {
    "compare": ["backbone", "method"],
    "fixed": {"patch_size": 14},
    "grid": {
        "dataset": ["breastmnist", "retinamnist"],
        "backbone": {"tiny": {"model": "vit_tiny_patch16_224"}, "small": {"model": "vit_small_patch16_224"}},
        "method": ["finetune", "linear_probe"],
        "seed": [0, 1],
    },
}


def expecting(table: str) -> dict:
    return STUDY | {"expect": [{"says": "Scores of a paper", "source": "a paper", "table": table}]}


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    run = write_study(tmp_path_factory.mktemp("runs") / "made", expecting(TABLE), images=40, epochs=2)
    return conclude(load_study(run), resamples=20)


def test_only_cells_that_both_have_are_compared(findings):
    accuracy, auc = compare_published(findings)
    cells = accuracy.cells.set_index(["backbone", "method"])
    assert (accuracy.total, len(cells)) == (4, 3)
    trials = findings.trials
    own = trials[(trials["dataset"] == "breastmnist") & (trials["level"] == "tiny") & (trials["method"] == "finetune")]
    cell = cells.loc[("tiny", "finetune")]
    assert cell["ours"] == pytest.approx(own["test_accuracy"].mean())
    assert cell["std"] == pytest.approx(own["test_accuracy"].std(ddof=1))
    assert cell["published"] == 0.5
    assert cell["difference"] == pytest.approx(cell["ours"] - 0.5)
    # An empty cell is no score, and a heading without % is of 0 to 1.
    assert (auc.total, len(auc.cells)) == (3, 2)
    assert set(auc.cells["published"]) == {0.5, 0.7}


def test_the_report_shows_each_metric_once_though_two_factors_are_asked(findings):
    other = conclude(findings.results, findings.results.factors[1], resamples=20)
    text = report_markdown(compose_report([findings, other]))
    assert text.count("**Scores of a paper: accuracy**") == 1
    assert "3 of 4 published cells have a counterpart here" in text
    assert [table.name for table in published_tables(findings)] == ["published_1", "published_2"]


def test_what_cannot_be_compared_is_said(tmp_path):
    table = "dataset,backbone,accuracy\nbreastmnist,tiny,0.5\n"
    run = write_study(tmp_path / "unnamed", expecting(table), images=40, epochs=2)
    found = conclude(load_study(run), resamples=20)
    assert not published_tables(found)
    assert published_notes(found) == [
        "Not compared with a paper (accuracy): it does not say which training method its scores are of."
    ]


def test_a_table_is_read_from_beside_its_study(tmp_path: Path):
    (tmp_path / "paper.csv").write_text(TABLE)
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ncompare: method\nfixed: {dataset: derma, patch_size: 7}\n"
        "grid: {method: [finetune, linear_probe]}\n"
        "expect:\n  - {says: Scores, source: a paper, table: paper.csv}\n"
    )
    with pytest.raises(ValueError, match="line 2 of the table has 'tiny' under backbone"):
        read_study(tmp_path / "mine.yaml")
    (tmp_path / "paper.csv").write_text("dataset,method,accuracy\nderma,finetune,0.5\n")
    study = read_study(tmp_path / "mine.yaml")
    assert study.expect[0].table == "dataset,method,accuracy\nderma,finetune,0.5\n"
    assert Study.model_validate(study.model_dump(by_alias=True, exclude_none=True)) == study


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("accuracy\n0.5\n", "a column `dataset`"),
        ("dataset,accuracy\n", "a row at least"),
        ("dataset,method\nderma,finetune\n", "needs a column of scores"),
        ("dataset,accuracy\nderma,high\n", "line 2 .* 'high' under accuracy"),
        ("dataset,accuracy\nderma,0.5,0.6\n", "line 2 .* more cells"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_runs(table: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study.model_validate({"name": "x"} | expecting(table))


def test_an_expectation_is_about_datasets_or_has_a_table():
    with pytest.raises(ValueError, match="is about nothing; give datasets or a table"):
        Study.model_validate({"name": "x"} | STUDY | {"expect": [{"says": "It works", "source": "a paper"}]})


def test_an_absent_file_is_named(tmp_path):
    content = {"name": "x"} | STUDY | {"expect": [{"says": "S", "source": "a", "table": str(tmp_path / "no.csv")}]}
    with pytest.raises(ValueError, match=r"cannot read the table .*no\.csv"):
        read_study(content)
