"""Images of one patient, from an own file's `test_groups` to the interval of a report."""

import numpy as np

from raypatch.analysis.answer.findings import conclude
from raypatch.analysis.frames.load import load_study
from raypatch.config import RunOptions
from raypatch.results import SweepPaths, read_predictions
from raypatch.sweep.run import ExecutorOptions, run_sweep

from tiny import make_images, tiny_study


def interval_widths(folder):
    evidence = conclude(load_study(folder), resamples=200).evidence
    intervals = evidence.intervals.set_index(["level", "metric"])
    return intervals["high"] - intervals["low"]


def test_images_of_one_patient_widen_the_intervals(tmp_path):
    data = make_images(tmp_path / "own.npz")
    with np.load(data) as stored:
        arrays = dict(stored)
    told = tmp_path / "told.npz"
    names = [f"picture {place}" for place in range(12)]
    np.savez(told, **arrays, test_patients=np.repeat(["ann", "bob", "cy", "di"], 3), test_ids=np.array(names))
    widths = []
    for path in (data, told):
        folder = tmp_path / path.stem
        run_sweep(tiny_study(path, seed=[0, 1]), folder, RunOptions(device="cpu"), ExecutorOptions(executor="local"))
        widths.append(interval_widths(folder))
    trial = SweepPaths(tmp_path / "told").trial_folders()[0]
    predictions = read_predictions(trial.predictions, "test")
    assert predictions.group.tolist() == np.repeat(["ann", "bob", "cy", "di"], 3).tolist()
    assert predictions.id.tolist() == names
    assert read_predictions(trial.predictions, "val").group is None
    assert (widths[1] > 0).all()
    assert not widths[0].equals(widths[1])
    assert widths[1].mean() > widths[0].mean()
