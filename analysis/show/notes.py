"""What a reader must know first, how far the study is, and by which method the numbers came."""

from collections.abc import Sequence

import pandas as pd

from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.answer.majority import say_majority
from raypatch.analysis.answer.scores.cells import Question
from raypatch.analysis.frames.load import Results
from raypatch.analysis.show.tables.published import published_notes
from raypatch.analysis.show.tables.stages import list_stage_warnings
from raypatch.analysis.wording import capitalize, plural
from raypatch.data.catalog import SPLITS, Split
from raypatch.results.repeated import repeated_key
from raypatch.tasks import reads_masks
from raypatch.words import agree, counted


def title_of(findings: Sequence[Findings]) -> str:
    """Return the question and the runs: Which patch size, and which model? NAME."""
    results = findings[0].results
    names = ", ".join(dict.fromkeys([*results.records, *results.trials["run"]]))
    asked = ", and ".join(f"which {one.factor.label}" for one in findings)
    return f"{capitalize(asked)}? {names}"


def list_notes(findings: Sequence[Findings]) -> list[str]:
    """Return what a reader must know first: made-up data, trials that are missing, failed or could not be used."""
    first = findings[0]
    notes = [
        *_note_on_made_up_data(first.trials),
        *_notes_on_twins(first.results),
        *_notes_on_data(first.results),
        *_notes_on_absent_classes(first.trials),
        *_notes_on_missing(first.results),
        *list_stage_warnings(first.results),
        *_note_on_seeds(first.trials),
        *published_notes(first),
    ]
    for one in findings:
        notes += _notes_on_question(one.question)
        notes += _notes_on_metric(one)
        notes += _note_on_masks(one)
    # The same trials are behind every question.
    notes += say_majority(first.cells, first.factor, first.question.settings)
    for one in findings:
        for problem in one.problems:
            notes.append(f"Left out: {problem}")
    # Several factors are asked of the same trials and so find the same problems.
    return list(dict.fromkeys(notes))


def _note_on_made_up_data(trials: pd.DataFrame) -> list[str]:
    labels = trials["dataset_label"].drop_duplicates().sort_values()
    made_up = labels[labels.str.startswith("phantom")]
    if made_up.empty:
        return []
    shown = ", ".join(made_up)
    return [f"{shown}: made-up images. They show that the tool works and nothing about medicine."]


def _notes_on_missing(results: Results) -> list[str]:
    """How many planned trials have no result, and which errors the failed ones ended with."""
    notes = []
    missing = results.missing
    if len(missing):
        states = missing["state"].value_counts()
        shown = ", ".join(f"{count} {state}" for state, count in states.items())
        have = agree(len(missing), "has", "have")
        notes.append(
            f"{counted(len(missing), 'planned trial')} {have} no result: {shown}. The table at the end names"
            f" {agree(len(missing), 'it', 'them')}."
        )
    failed = results.trials[results.trials["status"] == "failed"]
    for error, count in failed["error"].value_counts().items():
        notes.append(f"{counted(count, 'trial')} failed: {error}")
    return notes


def _note_on_seeds(trials: pd.DataFrame) -> list[str]:
    seeds = trials.groupby("dataset_label")["seed"].nunique()
    if not (seeds == 1).any():
        return []
    few = ", ".join(seeds.index[seeds == 1])
    return [f"One seed only: {few}. Intervals there speak of other test images, not of other seeds; nothing is tested."]


def _notes_on_twins(results: Results) -> list[str]:
    """How many test images repeat one of train or val, and whether they count."""
    notes = []
    finished = results.trials[results.trials["status"] == "ok"]
    for (dataset, label), trials in finished.groupby(["dataset", "dataset_label"], sort=False):
        repeated = 0
        images = 0
        for _, of_fold in trials.groupby("fold", dropna=False, sort=False):
            fold = of_fold["fold"].iloc[0]
            key = repeated_key(str(dataset), None if pd.isna(fold) else int(fold))
            repeated += len(results.repeated.get(key, ()))
            images += int(of_fold["test_images"].max())
        if repeated and results.without_twins:
            those, are = agree(repeated, "that repeats", "that repeat"), agree(repeated, "is", "are")
            images_left_out = f"{counted(repeated, 'test image')} {those} an image of train or val {are} left out"
            notes.append(f"{label}: {images_left_out}.")
        elif repeated:
            notes.append(
                f"{label}: {repeated} of {counted(images, 'test image')} {agree(repeated, 'repeats', 'repeat')}"
                " an image of train or val, so that its scores may be too high; `raypatch report --without-twins`"
                f" leaves {agree(repeated, 'it', 'them')} out."
            )
    return notes


def _notes_on_data(results: Results) -> list[str]:
    """What a check of own data found besides."""
    notes = []
    for (dataset, label), _ in results.trials.groupby(["dataset", "dataset_label"], sort=False):
        found = results.data_findings.get(str(dataset), ())
        if found:
            notes.append(f"{label}: {'; '.join(found)}.")
    return notes


def _notes_on_absent_classes(trials: pd.DataFrame) -> list[str]:
    """Which classes have no image in val or test, so that some scores there are undefined."""
    absent: dict[tuple[str, Split], dict[str, None]] = {}
    for row in trials[trials["status"] == "ok"].to_dict("records"):
        # Files of earlier versions do not say.
        for split, counts in zip(SPLITS, row.get("balance") or (), strict=False):
            for name, count in zip(row["classes"], counts, strict=False):
                if split != "train" and not count:
                    absent.setdefault((row["dataset_label"], split), {})[name] = None
    notes = []
    for (label, split), names in absent.items():
        notes.append(
            f"{label}: no {split} image of {', '.join(names)}; what needs all classes, such as the AUC, is not defined"
            f" there{', and no threshold is chosen for them' if split == 'val' else ''}."
        )
    return notes


def _notes_on_question(question: Question) -> list[str]:
    if not question.settings:
        return []
    varied = " and ".join(setting.label for setting in question.settings)
    return [f"The answer to which {question.factor.label} is given for each {varied} apart; a mean over them says so."]


def _notes_on_metric(findings: Findings) -> list[str]:
    """Say which datasets have no score of the metric that the answer is about."""
    column = f"test_{findings.metric.name}_mean"
    scored = findings.cells.groupby("dataset_label")[column].count()
    without = scored.index[scored == 0]
    if without.empty:
        return []
    named = ", ".join(map(str, without))
    return [f"No {findings.metric.label}, so not in the answer: {named}."]


def count_trials(results: Results) -> str:
    """Return how far the study is: `210 of 216 planned trials finished`."""
    status = results.trials["status"]
    if not results.records:
        return f"{counted(int((status == 'ok').sum()), 'trial')} finished"
    planned: set[str] = set()
    for record in results.records.values():
        planned.update(config.trial_id() for config in record.trials if not config.makes_weights)
    finished = len(planned - set(results.missing["trial_id"]))
    said = f"{finished} of {len(planned)} planned trials finished"
    # A folder keeps the trials of earlier commands, which sweep.json no longer plans.
    extra = int(status.isin(["ok", "pruned"]).sum()) - finished
    return f"{said}, and {extra} of earlier commands" if extra > 0 else said


def _note_on_masks(findings: Findings) -> list[str]:
    """Say why segmentations have no ensembles: their pixels were not kept."""
    masks = findings.trials[findings.trials["task"].map(reads_masks)]
    several = masks["level"].nunique() > 1 or masks["seed"].nunique() > 1
    if masks.empty or not several or not findings.ensembles.empty:
        return []
    return [
        "No ensembles of masks: they need the probabilities of all pixels, which `raypatch run --keep-masks` keeps."
    ]


def describe_method(findings: Sequence[Findings]) -> tuple[str, ...]:
    """Return how the numbers came about, for the end of a report."""
    labels = " and ".join(one.factor.label for one in findings)
    levels = " or ".join(plural(one.factor.label) for one in findings)
    masks = any(one.trials["task"].map(reads_masks).any() for one in findings)
    of_masks = [
        "Dice is 2 × the pixels that prediction and truth share / the pixels of both, IoU shared / either, at a"
        " probability of 0.5 or the most probable class, at the size of the file. Each is the mean over images of the"
        " mean over an image's classes without the background; a class that neither has is left out, and an image"
        " with none counts 1. pDice and pIoU pool the pixels of all images. Ensembles are the mean probability of"
        " each pixel."
    ]
    sentences = [
        "Scores are read on the test split once per trial, with the weights of its best validation epoch. Every choice"
        f" (epoch, hyperparameters, {labels}, ensemble weights and members) is made on the validation split.",
        "Accuracy is the share of right predictions; balanced accuracy the mean recall over the classes; AUC the mean"
        " of the one-versus-rest areas under the ROC curve. Multilabel sets: mean over the labels, threshold 0.5. A"
        " score that the labels leave undefined is shown as –, never as 0.",
        *(of_masks if masks else ()),
        "± is the sample standard deviation over seeds. Intervals are of 95 %: the variance from the choice of the test"
        " images, by 1000 resamples, and that from the luck of training, by the spread of the seeds, in a t"
        " distribution with Satterthwaite's degrees of freedom; of scores within 0 and 1 by Wilson's formula. With one"
        f" seed they speak of the test images alone. Differences of two {levels} use the same images in each resample;"
        " p is two-sided, corrected over the datasets after Holm, and there is none with one seed.",
        "Across datasets: Friedman's test on the mean over seeds, then Nemenyi's, and Wilcoxon's signed-rank test of"
        " each pair, exact, with Holm's or Bonferroni's correction (Demšar, JMLR 2006). With five datasets or fewer"
        " Wilcoxon's test cannot reach 5 %, with ten levels it takes eleven datasets; datasets on which two levels"
        " score the same are left out of their test.",
        "GFLOPs are 2 × multiply-accumulates of one forward pass for one image, attention included; the column “no"
        " attention” leaves out the two attention products, as most papers count. An ensemble costs all its members.",
        f"Trials of one dataset and {labels} that differ in anything but the seed are never averaged, but where it is"
        " said: a mean over settings draws the images once for all of them and counts each setting alike. Where"
        " hyperparameters were tuned, the configuration with the most seeds and the best validation score stands for"
        " its level.",
    ]
    return tuple(sentences)
