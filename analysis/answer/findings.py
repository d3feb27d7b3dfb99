"""All that a report shows of one factor: cells, intervals, ensembles, and the conclusion under each setting."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd

from raypatch.analysis.answer.conclusions import Conclusion, compare_with_baseline, find_answer, rank_levels
from raypatch.analysis.answer.evidence import (
    EVIDENCE_COLUMNS,
    Evidence,
    examine_series,
    join_rows,
    usable_predictions,
)
from raypatch.analysis.answer.majority import mark_majority
from raypatch.analysis.answer.scores.averages import average_cells, average_differences, common_settings
from raypatch.analysis.answer.scores.cells import DATASET_KEYS, Question, ask, select_recipes
from raypatch.analysis.answer.scores.ensembles import all_ensembles, level_ensembles
from raypatch.analysis.answer.scores.metrics import headline_metric, shown_metrics
from raypatch.analysis.answer.scores.summary import singles, summarize_cells
from raypatch.analysis.frames.load import Results
from raypatch.analysis.frames.trial_rows import Problem
from raypatch.analysis.statistics.draws import RESAMPLES
from raypatch.analysis.statistics.inference import LevelScores
from raypatch.factors import Factor
from raypatch.machine.cores import available_cores
from raypatch.tasks import Metric


@dataclass(frozen=True)
class Findings:
    """All that a report shows of one factor.

    trials: finished, one recipe per series and level. metrics: those that tables show, `metric` (of
    the answer) among them. cells: `summarize_cells` with test_<metric>_low and _high, no_better and
    one_class (`compare_with_majority`), the default ensemble beneath. recipes: the same of every
    recipe, where hyperparameters were tuned, else empty. ensembles: `all_ensembles`. evidence: of
    all series, with their keys as columns. conclusions: one per setting. overall: over the
    settings, where there are several. problems: what could not be used.
    """

    results: Results
    question: Question
    metric: Metric
    metrics: tuple[Metric, ...]
    trials: pd.DataFrame
    cells: pd.DataFrame
    recipes: pd.DataFrame
    ensembles: pd.DataFrame
    evidence: Evidence
    conclusions: tuple[Conclusion, ...]
    overall: tuple[Conclusion, ...]
    problems: tuple[Problem, ...]

    @property
    def factor(self) -> Factor:
        """What is compared."""
        return self.question.factor

    @property
    def metric_headings(self) -> list[str]:
        """What stands above the columns of the scores."""
        return [metric.heading for metric in self.metrics]

    @property
    def gains(self) -> pd.DataFrame:
        """The gains of all settings, one row per series."""
        return _join_gains(self.conclusions)


def _join_gains(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    return pd.concat([conclusion.gains for conclusion in conclusions], ignore_index=True)


def conclude(results: Results, factor: Factor | None = None, resamples: int = RESAMPLES) -> Findings:
    """Draw the conclusions about one factor, by default the first. Raises ValueError without a finished trial."""
    if not (results.trials["status"] == "ok").any():
        raise ValueError("no finished trial: there is nothing to conclude")
    question = ask(results, factor or results.factors[0])
    trials = select_recipes(question)
    metric = headline_metric(trials, results.metric)
    metrics = shown_metrics(trials, metric)
    names = [each.name for each in metrics]
    # Scores count without stored predictions; intervals, tests and ensembles need them.
    usable, problems = usable_predictions(trials)
    evidence = _examine(usable, question, metric, metrics, resamples)
    ensembles = level_ensembles(question, usable, metric)
    cells = summarize_cells(question, trials, names, ensembles=ensembles, median=results.median)
    cells = _add_intervals(cells, evidence.intervals, question.cell, names)
    cells = mark_majority(cells, evidence.majority, question.cell)
    conclusions = tuple(_conclude_settings(cells, evidence, question, metric))
    chosen = _join_gains(conclusions)
    recipes = summarize_cells(question, question.trials, names, recipe=question.tuned, median=results.median)
    return Findings(
        results=results,
        question=question,
        metric=metric,
        metrics=metrics,
        trials=trials,
        cells=cells,
        recipes=recipes if question.tuned else cells.iloc[:0],
        ensembles=all_ensembles(question, usable, chosen, metric, names),
        evidence=evidence,
        conclusions=conclusions,
        overall=tuple(_conclude_overall(cells, evidence, question, metric)),
        problems=(*results.problems, *problems),
    )


def _examine(
    usable: pd.DataFrame, question: Question, metric: Metric, metrics: Sequence[Metric], resamples: int
) -> Evidence:
    """Examine every series, side by side on the cores: the bootstrap spends its time outside Python."""
    groups = dict(list(usable.groupby(question.series, sort=False, dropna=False)))

    def examine(series: pd.DataFrame) -> Evidence:
        return examine_series(series, metric, metrics, resamples)

    with ThreadPoolExecutor(available_cores()) as pool:
        by_series = dict(zip(groups, pool.map(examine, groups.values()), strict=True))
    joined = {}
    for name, columns in EVIDENCE_COLUMNS.items():
        frames = []
        for key, evidence in by_series.items():
            own = dict(zip(question.series, key, strict=True))
            frames.append(getattr(evidence, name).assign(**own))
        joined[name] = join_rows(frames, [*question.series, *columns])
    measured: dict[tuple[object, ...], LevelScores] = {}
    for key, evidence in by_series.items():
        for level, scores in evidence.level_scores.items():
            measured[(*key, *level)] = scores
    return Evidence(**joined, level_scores=measured)


def _add_intervals(
    cells: pd.DataFrame, intervals: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]
) -> pd.DataFrame:
    """Add the columns test_<metric>_low and test_<metric>_high; NaN for ensembles."""
    for metric in metrics:
        bounds = intervals.loc[intervals["metric"] == metric, [*keys, "low", "high"]]
        named = bounds.rename(columns={"low": f"test_{metric}_low", "high": f"test_{metric}_high"})
        cells = cells.merge(named, how="left", on=list(keys))
    return cells


def _conclude_settings(
    cells: pd.DataFrame, evidence: Evidence, question: Question, metric: Metric
) -> Iterator[Conclusion]:
    """The conclusion of each dimensionality under each setting."""
    by = ["dimensions", *question.setting_keys]
    differences = evidence.differences
    # Stable, and groups in order of appearance: settings keep the order that `Question.trials` has.
    ordered = singles(cells).sort_values("dimensions", kind="stable")
    for key, block in ordered.groupby(by, sort=False, dropna=False):
        here = dict(zip(by, key, strict=True))
        tested = differences[(differences[by] == pd.Series(here)).all(axis=1)]
        dimensions = int(str(here["dimensions"]))
        setting = {name: str(here[name]) for name in question.setting_keys}
        words = question.name_setting(setting)
        yield Conclusion(
            label=f"{dimensions}D, {words}" if words else f"{dimensions}D",
            dimensions=dimensions,
            setting=setting,
            averaged=(),
            cells=block,
            gains=compare_with_baseline(block, tested, question.series, question.factor, metric),
            answer=find_answer(block, tested, question.factor, metric),
            ranks=rank_levels(block, question.factor, metric),
        )


def _conclude_overall(
    cells: pd.DataFrame, evidence: Evidence, question: Question, metric: Metric
) -> Iterator[Conclusion]:
    """The conclusion of each dimensionality over the settings that all levels have, where these are several."""
    if not question.settings:
        return
    for dimensions, block in singles(cells).groupby("dimensions"):
        common = common_settings(block, question)
        distinct = common.drop_duplicates(question.setting_keys)
        settings = [question.name_setting(row) for row in distinct.to_dict("records")]
        if len(settings) < 2 or common["level"].nunique() < 2:
            continue
        means = average_cells(common)
        tested = average_differences(common, question, evidence.level_scores)
        over = " and ".join(setting.label for setting in question.settings)
        yield Conclusion(
            label=f"{dimensions}D, averaged over {over}",
            dimensions=int(str(dimensions)),
            setting={},
            averaged=tuple(settings),
            cells=means,
            gains=compare_with_baseline(means, tested, DATASET_KEYS, question.factor, metric),
            answer=find_answer(means, tested, question.factor, metric),
            ranks=rank_levels(means, question.factor, metric),
        )
