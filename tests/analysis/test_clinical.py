"""What a reviewer asks: the section of a report equals what the libraries say of the stored predictions."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as reference
from statsmodels.stats.proportion import proportion_confint

from raypatch.analysis.answer.clinical import examine_clinically
from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.analysis.report import prepare_report, write_report
from raypatch.results import Predictions, SweepPaths, read_predictions, write_predictions

from made_runs import made_configs, write_run


def with_patients(run, images_each=3):
    """Say of every image of a run who is on it."""
    for paths in SweepPaths(run).trial_folders():
        splits = {}
        for split in ("val", "test"):
            found = read_predictions(paths.predictions, split)
            # Patients share a label, but for the first and whom the classes divide.
            order = np.argsort(found.label, kind="stable")
            names = np.empty(len(order), dtype="U8")
            names[order] = [f"P{place // images_each:03}" for place in range(len(order))]
            names[order[-1]] = "P000"
            splits[split] = Predictions(found.index, found.label, found.probability, names)
        write_predictions(paths.predictions, splits)


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory):
    run = tmp_path_factory.mktemp("one")
    return write_run(run, made_configs(["breastmnist"], [14, 7], 1), images=120)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    run = tmp_path_factory.mktemp("several")
    write_run(run, made_configs(["breastmnist", "retinamnist"], [14, 7], 2), images=90)
    with_patients(run)
    return run


def stored_of(run, findings, dataset, split):
    (level,) = findings.gains.loc[findings.gains["dataset"] == dataset, "chosen"]
    trials = findings.trials[(findings.trials["level"] == level) & (findings.trials["dataset"] == dataset)]
    return [read_predictions(SweepPaths(run).trial(name).predictions, split) for name in trials["trial_id"]]


def test_one_seed_has_delongs_and_wilsons_intervals(one_seed):
    findings = conclude(load_study(one_seed), resamples=50)
    clinical = examine_clinically(findings)
    (val,), (test,) = (stored_of(one_seed, findings, "breastmnist", split) for split in ("val", "test"))
    (area,) = clinical.areas.to_dict("records")
    assert area["how"] == "DeLong"
    assert area["auc"] == pytest.approx(reference.roc_auc_score(test.label, test.probability[:, 1]), abs=1e-6)
    assert area["ap"] == pytest.approx(reference.average_precision_score(test.label, test.probability[:, 1]), abs=1e-5)
    (point,) = clinical.operating.to_dict("records")
    false, hit, thresholds = reference.roc_curve(val.label, val.probability[:, 1], drop_intermediate=False)
    assert point["threshold"] == thresholds[1:][np.argmax((hit - false)[1:])]
    called = test.probability[:, 1] >= np.float32(point["threshold"])
    assert point["ppv"] == pytest.approx(reference.precision_score(test.label, called))
    wanted = proportion_confint((called & (test.label == 1)).sum(), (test.label == 1).sum(), method="wilson")
    assert (point["sensitivity_low"], point["sensitivity_high"]) == pytest.approx(wanted)


def test_seeds_are_averaged_and_patients_drawn_together(seeds):
    findings = conclude(load_study(seeds), resamples=50)
    clinical = examine_clinically(findings)
    members = stored_of(seeds, findings, "retinamnist", "test")
    areas = clinical.areas[clinical.areas["dataset"] == "retinamnist"]
    assert len(areas) == 5
    assert set(areas["how"]) == {"patients and seeds"}
    for grade, row in enumerate(areas.to_dict("records")):
        each = [reference.roc_auc_score(member.label == grade, member.probability[:, grade]) for member in members]
        assert row["auc"] == pytest.approx(np.mean(each), abs=1e-6)
        assert row["auc_low"] < row["auc"] < row["auc_high"]
    curves = clinical.curves[clinical.curves["kind"] == "roc"]
    assert (curves["low"] <= curves["mean"] + 1e-9).all()
    assert (curves["mean"] <= curves["high"] + 1e-9).all()


def test_scores_per_patient_are_of_the_mean_probability(seeds):
    findings = conclude(load_study(seeds), resamples=50)
    units = examine_clinically(findings).units
    wanted = []
    for member in stored_of(seeds, findings, "breastmnist", "test"):
        frame = pd.DataFrame({"who": member.group, "label": member.label, "p": member.probability[:, 1]})
        alone = frame.groupby("who").filter(lambda images: images["label"].nunique() == 1)
        mean = alone.groupby("who").mean()
        wanted.append(reference.roc_auc_score(mean["label"], mean["p"]))
    (row,) = units.query("dataset == 'breastmnist' and unit == 'patient' and metric == 'auc'").to_dict("records")
    assert row["mean"] == pytest.approx(np.mean(wanted), abs=1e-6)
    assert row["count"] == len(mean)
    assert row["mixed"] == frame["who"].nunique() - len(mean) > 0


def test_a_report_has_the_section_and_the_checklist(seeds, tmp_path):
    written = write_report([seeds], tmp_path, ["html", "md", "latex"], sensitivity=0.95, checklist=True)
    names = {path.name for path in written.files}
    tables = {"data.csv", "flow.csv", "areas.csv", "thresholds.csv", "patients.csv", "checklist.csv"}
    assert tables | {"curves_roc.svg", "curves_pr.svg", "curves_decision.svg"} <= names
    text = (tmp_path / "report.md").read_text()
    assert "the highest with a sensitivity of 95 %" in text
    assert "| CLAIM " in text
    thresholds = pd.read_csv(tmp_path / "tables" / "thresholds.csv")
    assert (thresholds[["sensitivity", "specificity"]] <= 1).all().all()
    assert "Decisions at a threshold" in (tmp_path / "tables.tex").read_text()


@pytest.mark.parametrize("wrong", [0, 1.2])
def test_a_sensitivity_that_cannot_be_is_refused(seeds, wrong):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        prepare_report([seeds], sensitivity=wrong)
