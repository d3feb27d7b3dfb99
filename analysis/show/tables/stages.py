"""What trainings without labels came to, which made the weights that trials start from."""

import math

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.frames.load import Results
from raypatch.analysis.frames.trial_rows import Stage
from raypatch.analysis.show.tables.table import Row, Table, name_cells, text_cells
from raypatch.analysis.wording import percent
from raypatch.factors import word_value
from raypatch.results import EpochRow, TrialPaths, read_epochs


def stages_table(findings: Findings) -> Table | None:
    """Return a row per pretraining: its loss and its score of nearest neighbours at the first and the last evaluation;
    None where there is none.
    """
    stages = findings.results.stages
    if not stages:
        return None
    metric = findings.metric
    rows: list[Row] = []
    for stage in stages:
        seen = stage_rows(stage)
        names = name_cells([stage.config.dataset_label, *_words(stage), stage.result.epochs])
        numbers: list[object] = []
        for some in (seen[:1], seen[-1:]):
            losses = [f"{row.train_loss:.3f}" for row in some]
            scores = [percent(row.val.get(metric.name, math.nan)) for row in some]
            numbers += [*(losses or ["–"]), *(scores or ["–"])]
        problem = stage.result.alarm or ("failed" if stage.result.status == "failed" else "")
        rows.append(names + text_cells([*numbers, problem]))
    ends = [f"{name}, {when}" for when in ("first", "last") for name in ("Loss", f"k-NN {metric.heading}")]
    return Table(
        name="stages",
        title="Trainings without labels",
        columns=("Dataset", "Model", "Patch size", "From", "Epochs", *ends, "Warning"),
        blocks=(tuple(rows),),
        labels=4,
        note=(
            "They make the weights that trials start from, and are no levels themselves. k-NN: validation score of the"
            " nearest training images in the teacher's features. It chooses nothing: the last weights are kept."
        ),
        data=stage_frame(findings.results, metric.name),
    )


def list_stage_warnings(results: Results) -> list[str]:
    """Return a sentence for each pretraining at whose end something was wrong, or that failed."""
    said = []
    for stage in results.stages:
        if stage.result.alarm:
            said.append(f"The pretraining {stage.result.trial_id} has {stage.result.alarm}.")
        elif stage.result.status == "failed":
            said.append(f"The pretraining {stage.result.trial_id} failed; so did the trials that start from it.")
    return said


def stage_frame(results: Results, metric: str) -> pd.DataFrame:
    """Return a row per evaluation of each pretraining: panel, trial_id, epoch, loss, score and what it watched."""
    rows = []
    for stage in results.stages:
        panel = _title(stage)
        for row in stage_rows(stage):
            rows.append(
                {
                    "panel": panel,
                    "trial_id": stage.result.trial_id,
                    "epoch": row.epoch,
                    "loss": row.train_loss,
                    "score": row.val.get(metric, math.nan),
                    **row.watched,
                }
            )
    return pd.DataFrame(rows, columns=None if rows else ["panel", "trial_id", "epoch", "loss", "score"])


def stage_rows(stage: Stage) -> list[EpochRow]:
    """Return the evaluations of a pretraining; none where its files are damaged."""
    try:
        return read_epochs(TrialPaths(stage.folder).epochs)
    except ValueError:
        return []


def _title(stage: Stage) -> str:
    """What a panel shows: dataset, model, patch size, and the weights that it began with."""
    model, patch_size, weights = _words(stage)
    patches = f", patch size {patch_size}" if stage.config.patch_size is not None else ""
    return f"{stage.config.dataset_label}, {model}{patches}, from {weights}"


def _words(stage: Stage) -> list[str]:
    config = stage.config
    return [word_value(name, getattr(config, name)) for name in ("model", "patch_size", "weights")]
