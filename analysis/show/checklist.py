"""The items of TRIPOD+AI (BMJ 2024) and CLAIM (Radiol. Artif. Intell. 2024) that a run can fill, from its own facts.

What an item asks is said in our words; its number finds it in the original.
"""

from collections.abc import Iterator

import pandas as pd

from raypatch.analysis.answer.clinical import Clinical
from raypatch.analysis.answer.findings import Findings
from raypatch.analysis.show.notes import count_trials
from raypatch.analysis.show.tables.table import Table, text_cells
from raypatch.analysis.wording import capitalize, score_with_interval
from raypatch.words import counted

NAN = float("nan")
FEW = 3
"""Classes of a dataset that are named one by one."""

ITEMS = (
    ("TRIPOD+AI", "5a", "Where the data come from", "data"),
    ("TRIPOD+AI", "7", "How the images were prepared", "preparation"),
    ("TRIPOD+AI", "8a", "What is predicted", "outcome"),
    ("TRIPOD+AI", "9b", "What it is predicted from", "predictors"),
    ("TRIPOD+AI", "10", "How large the sample is", "size"),
    ("TRIPOD+AI", "12a", "What each part of the data was used for", "use"),
    ("TRIPOD+AI", "12c", "Kind of model, how it was built, tuned and validated", "training"),
    ("TRIPOD+AI", "12e", "How performance is measured", "measures"),
    ("TRIPOD+AI", "13", "Classes of unequal size", "balance"),
    ("TRIPOD+AI", "15", "What the model puts out, and thresholds", "output"),
    ("TRIPOD+AI", "18f", "The code", "software"),
    ("TRIPOD+AI", "20a", "Flow of images and patients", "flow"),
    ("TRIPOD+AI", "21", "Images and events in each analysis", "events"),
    ("TRIPOD+AI", "22", "The model itself", "model_itself"),
    ("TRIPOD+AI", "23a", "Performance with intervals", "performance"),
    ("CLAIM", "7", "Where the data come from", "data"),
    ("CLAIM", "9", "How the images were prepared", "preparation"),
    ("CLAIM", "19", "How images came into train, validation and test", "use"),
    ("CLAIM", "20", "Whether a patient is in one part only", "disjoint"),
    ("CLAIM", "21", "How large the sample is", "size"),
    ("CLAIM", "22", "The model", "model"),
    ("CLAIM", "23", "Software", "software"),
    ("CLAIM", "24", "Where the weights start", "weights"),
    ("CLAIM", "25", "How the model was trained", "training"),
    ("CLAIM", "26", "How the final model was chosen", "selection"),
    ("CLAIM", "27", "Ensembles", "ensembles"),
    ("CLAIM", "28", "Measures of performance", "measures"),
    ("CLAIM", "29", "Uncertainty and tests", "uncertainty"),
    ("CLAIM", "32", "Evaluation on data of the same source", "internal"),
    ("CLAIM", "33", "Evaluation on data of another source", "external"),
    ("CLAIM", "35", "Images and patients included", "flow"),
    ("CLAIM", "36", "Cases of each class in each part", "balance"),
    ("CLAIM", "37", "Performance", "performance"),
    ("CLAIM", "38", "Estimates with their precision", "precision"),
    ("CLAIM", "39", "What goes wrong", "errors"),
    ("CLAIM", "43", "Software, model and data for others", "model_itself"),
)
RECIPE = ("method", "epochs", "batch_size", "lr", "weight_decay", "augmentation", "train_fraction")
"""Fields that say how a model was trained; those that a run varies are said to vary."""


def checklist_table(findings: Findings, clinical: Clinical) -> Table:
    """Return the items with what this run says to each."""
    facts = dict(_facts_of_data(findings, clinical))
    facts.update(_facts_of_models(findings))
    facts.update(_facts_of_results(findings, clinical))
    blocks = []
    for checklist in ("TRIPOD+AI", "CLAIM"):
        rows = [(number, asks, facts[fact]) for name, number, asks, fact in ITEMS if name == checklist]
        blocks.append(tuple(text_cells([checklist, *row]) for row in rows))
    numbers = [(name, number, asks, facts[fact]) for name, number, asks, fact in ITEMS]
    columns = ("Checklist", "Item", "What is asked", "What this run says")
    return Table(
        name="checklist",
        title="What a run can say to TRIPOD+AI and CLAIM",
        columns=columns,
        blocks=tuple(blocks),
        labels=len(columns),
        note="All other items, such as setting, eligibility, ethics, fairness and funding, are for the authors.",
        data=pd.DataFrame(numbers, columns=["checklist", "item", "asks", "says"]),
    )


def _facts_of_data(findings: Findings, clinical: Clinical) -> Iterator[tuple[str, str]]:
    """Where the images come from, what is on them, and what each part of them was used for."""
    trials = findings.trials
    datasets = _listed(trials, "dataset_label")
    yield "data", f"{datasets}. Source, dates and consent: for the authors."
    yield (
        "preparation",
        (
            f"Images of 0 to 255 brought to {_listed(trials, 'image_size')} px ({_listed(trials, 'resize')}),"
            " normalised with mean and deviation of the weights."
        ),
    )
    yield "outcome", _outcomes(trials)
    dimensions = " and ".join(f"{value}D" for value in sorted(trials["dimensions"].unique()))
    yield "predictors", f"One {dimensions} image or volume; nothing else about the patient."
    sizes = _sizes(clinical)
    yield "size", f"{sizes} No sample size was calculated; intervals say what these numbers allow."
    yield (
        "use",
        (
            "Train: weights. Validation: epoch, hyperparameters, level and thresholds. Test: read once per trial, after"
            f" the last epoch, with the weights of the best validation epoch. {sizes}"
        ),
    )
    yield "disjoint", _disjoint(findings, clinical)
    yield "balance", _balance(clinical)
    yield "flow", f"{count_trials(findings.results)}. {sizes} See the table of the flow."
    yield "internal", f"The test split of {datasets}."
    yield "external", "Not in this report: `raypatch evaluate RUN --data EXTERNAL` makes one."


def _facts_of_models(findings: Findings) -> Iterator[tuple[str, str]]:
    """What was trained, from which weights, how, and how one was chosen."""
    trials, factor = findings.trials, findings.factor
    models = _listed(trials, "model")
    yield "training", f"{models}. {_recipe(trials)}"
    parameters = sorted(trials["parameters"].dropna().unique())
    said = ", ".join(f"{value / 1e6:.1f} M" for value in parameters)
    yield "model", f"{models}, {said} weights; input {_listed(trials, 'image_size')} px."
    yield "weights", f"{_listed(trials, 'weights')}."
    yield (
        "selection",
        (f"Epoch by {_listed(trials, 'selection')}; {factor.label} and recipe by the mean over seeds of that score."),
    )
    ensembles = len(findings.ensembles)
    yield "ensembles", f"{ensembles} ensembles, weights and members by validation." if ensembles else "None."
    yield "software", _software(findings)
    yield (
        "model_itself",
        (
            "`raypatch export RUN --trial ID --card` writes weights, normalisation, classes and a model card;"
            " `raypatch export RUN --all-results` what a colleague needs for this report."
        ),
    )


def _facts_of_results(findings: Findings, clinical: Clinical) -> Iterator[tuple[str, str]]:
    """How performance is measured, and what it is."""
    labels = ", ".join(metric.label for metric in findings.metrics)
    yield (
        "measures",
        (
            f"{capitalize(labels)}; per class AUC, average precision, sensitivity, specificity, predictive values, net"
            " benefit; calibration error and Brier score."
        ),
    )
    yield (
        "uncertainty",
        (
            "95 % intervals from resampled test images (patients, where it is known who is who) and the spread of"
            " seeds; DeLong and Wilson for one seed; p corrected after Holm."
        ),
    )
    performance, thresholds = _performance(clinical), _thresholds(clinical)
    yield "output", f"A probability for each class. {thresholds}"
    yield "events", _events(clinical)
    yield "performance", performance
    yield "precision", f"{performance} {thresholds}"
    yield "errors", "Tables and plots of classes, confusions and calibration."


def _listed(trials: pd.DataFrame, column: str) -> str:
    return ", ".join(map(str, trials[column].dropna().unique()))


def _outcomes(trials: pd.DataFrame) -> str:
    said = []
    for label, own in trials.groupby("dataset_label", sort=False):
        classes = own["classes"].iloc[0]
        said.append(f"{label}: {own['task'].iloc[0]}, {len(classes)} classes ({', '.join(classes)})")
    return f"{'; '.join(said)}."


def _sizes(clinical: Clinical) -> str:
    said = []
    for label, own in clinical.balance.groupby("dataset_label", sort=False):
        parts = []
        for row in own.drop_duplicates("split").to_dict("records"):
            patients = "" if pd.isna(row["patients"]) else f" of {counted(int(row['patients']), 'patient')}"
            parts.append(f"{row['split']} {row['total']:,}{patients}")
        said.append(f"{label}: {', '.join(parts)}")
    return f"{'; '.join(said)}." if said else ""


def _disjoint(findings: Findings, clinical: Clinical) -> str:
    known = clinical.balance["patients"].notna().any() if len(clinical.balance) else False
    patients = (
        "By the patients that the file names; `raypatch data verify` compares them."
        if known
        else ("The file names no patients, so this is not known.")
    )
    twins = sum(map(len, findings.results.repeated.values()))
    return f"{patients} Test images that repeat one of train or val: {twins}."


def _recipe(trials: pd.DataFrame) -> str:
    said = []
    for field in RECIPE:
        values = trials[field].dropna().unique()
        shown = str(values[0]) if len(values) == 1 else f"{len(values)} values"
        if len(values):
            said.append(f"{field.replace('_', ' ')} {shown}")
    return f"{capitalize(', '.join(said))}; seeds {_listed(trials, 'seed')}."


def _balance(clinical: Clinical) -> str:
    said = []
    test = clinical.balance[clinical.balance["split"] == "test"].drop_duplicates(["dataset_label", "class"])
    for label, own in test.groupby("dataset_label", sort=False):
        known = own.dropna(subset="images")
        if len(known):
            rarest = known.iloc[known["images"].astype(float).argmin()]
            said.append(f"{label}: rarest in test is {rarest['class']}, {int(rarest['images'])} of {rarest['total']}")
    return f"{'; '.join(said)}. The table of the data has all." if said else "Not known."


def _events(clinical: Clinical) -> str:
    said = []
    for label, own in clinical.areas.groupby("dataset_label", sort=False):
        counts = [f"{row['class']} {row['positives']}" for row in own.to_dict("records")]
        said.append(f"{label}: {', '.join(counts)} of {own['images'].iloc[0]}")
    return f"In test, {'; '.join(said)}." if said else "No predictions are stored."


def _performance(clinical: Clinical) -> str:
    said = []
    for label, own in clinical.areas.groupby("dataset_label", sort=False):
        if len(own) > FEW:
            low, high = 100 * own["auc"].min(), 100 * own["auc"].max()
            said.append(f"{label}: AUC {low:.1f} to {high:.1f} over {len(own)} classes")
            continue
        for row in own.to_dict("records"):
            shown = score_with_interval(row["auc"], NAN, row["auc_low"], row["auc_high"])
            said.append(f"{label}, {row['class']}: AUC {shown}")
    if not said:
        return "No predictions are stored."
    return f"{'; '.join(said)} (percent, 95 % interval). The tables of scores and of areas have all."


def _thresholds(clinical: Clinical) -> str:
    rule = "Youden's" if clinical.sensitivity is None else f"a sensitivity of {100 * clinical.sensitivity:g} %"
    return f"Thresholds were chosen on validation by {rule}; the table of decisions has what they do on test."


def _software(findings: Findings) -> str:
    said = []
    for row in findings.results.provenance.to_dict("records"):
        parts = [f"{name} {row[name]}" for name in ("raypatch", "torch", "python", "hardware") if row.get(name)]
        said.append(", ".join(parts))
    return f"{'; '.join(dict.fromkeys(said))}."
