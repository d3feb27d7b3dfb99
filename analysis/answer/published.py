"""A publication's table beside what was found: cell by cell, where both have one."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.frames.columns import score_column
from raypatch.analysis.frames.load import Results
from raypatch.config import TrialConfig
from raypatch.data.catalog import canonical_name
from raypatch.factors import field_label, word_value
from raypatch.results import Expectation
from raypatch.study.published import PERCENT, read_rows, score_columns, score_of
from raypatch.study.rules import typed_value


@dataclass(frozen=True)
class Published:
    """One metric of a publication's table beside ours.

    says, source: of the expectation. metric: its name. keys: the columns that name a cell beside the dataset.
    cells: those that both have: dataset, dataset_label, the keys, published, ours (mean over seeds), std, seeds,
    difference (ours - published); scores 0 to 1. total: published cells. why_not: why nothing could be
    compared; empty where something was.
    """

    says: str
    source: str
    metric: str
    keys: tuple[str, ...]
    cells: pd.DataFrame
    total: int
    why_not: str = ""


def compare_published(findings: Findings) -> list[Published]:
    """Return each metric of each published table of the runs' studies beside the trials of these findings."""
    compared = []
    for expectation in _tables_of(findings.results):
        known = {*TrialConfig.model_fields, *findings.results.levels.columns}
        known |= {factor.name for factor in findings.results.factors}
        for heading in score_columns(expectation.table, known):
            compared.append(_compare(findings, expectation, heading, known))
    return compared


def _tables_of(results: Results) -> list[Expectation]:
    """The expectations with a table, each once, of whatever factor."""
    found = []
    for record in results.records.values():
        found += [expectation for expectation in record.expect if expectation.table]
    return list(dict.fromkeys(found))


def _compare(findings: Findings, expectation: Expectation, heading: str, known: set[str]) -> Published:
    metric = heading.removesuffix(PERCENT)
    published = _published_cells(expectation.table, heading, known)
    keys = tuple(name for name in map(str, published) if name not in ("dataset", "published"))

    def beside(cells: pd.DataFrame, why_not: str = "") -> Published:
        return Published(expectation.says, expectation.source, metric, keys, cells, len(published), why_not)

    own = [findings.factor.name, *findings.question.setting_keys]
    unnamed = [field_label(name) for name in own if name not in keys]
    if unnamed:
        return beside(pd.DataFrame(), f"it does not say which {' and which '.join(unnamed)} its scores are of")
    if score_column("test", metric) not in findings.trials:
        return beside(pd.DataFrame(), f"no trial has the score {metric}")
    ours = _own_cells(findings, keys, score_column("test", metric))
    both = ours.merge(published, on=["dataset", *keys])
    if both.empty:
        return beside(both, "no cell of it has a counterpart here")
    return beside(both.assign(difference=both["ours"] - both["published"]))


def _published_cells(table: str, heading: str, known: set[str]) -> pd.DataFrame:
    """The cells of one score that are not empty: dataset and keys as our frames have them, published."""
    rows = []
    for row in read_rows(table):
        score = score_of(heading, row[heading])
        cell: dict[str, object] = {}
        for name, text in row.items():
            if name in known:
                cell[name] = _as_ours(name, text.strip())
        rows.append(cell | {"published": score})
    return pd.DataFrame(rows).dropna(subset="published")


def _as_ours(name: str, text: str) -> str:
    """A value of the table as ours are worded: a dataset's canonical name, a number as tables show it."""
    if name == "dataset":
        try:
            return canonical_name(text)
        except ValueError:
            # An own file is known by its name for people.
            return text
    if name in TrialConfig.model_fields:
        return word_value(name, typed_value(name, text))
    return text


def _own_cells(findings: Findings, keys: Sequence[str], column: str) -> pd.DataFrame:
    """The mean over the seeds of what the keys name: dataset, dataset_label, keys, ours, std, seeds."""
    results, trials = findings.results, findings.trials
    levels = results.levels.set_index(results.trials["trial_id"]).loc[trials["trial_id"]]
    frame = trials[["dataset", "dataset_label"]].assign(score=trials[column].to_numpy())
    # An own file's identity holds a digest, which no paper knows.
    frame["dataset"] = frame["dataset"].where(~frame["dataset"].str.startswith("file:"), frame["dataset_label"])
    for name in keys:
        if name in levels:
            frame[name] = levels[name].to_numpy()
        else:
            frame[name] = [word_value(name, value) for value in trials[name]]
    groups = frame.groupby(["dataset", "dataset_label", *keys], sort=False)["score"]
    return groups.agg(ours="mean", std="std", seeds="size").reset_index().dropna(subset="ours")
