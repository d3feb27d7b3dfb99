"""A model card beside an exported model: data, patients, scores with intervals, limits, licence, how to load."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from raypatch.analysis.answer.clinical import examine_stacks
from raypatch.analysis.answer.sentences import Statement
from raypatch.analysis.report_parts import Report, report_markdown
from raypatch.analysis.show.page.page import render_page
from raypatch.analysis.show.sections import Section
from raypatch.analysis.show.tables.clinical import operating_table
from raypatch.analysis.show.tables.table import Table, text_cells
from raypatch.analysis.statistics.diagnostics import CALIBRATION
from raypatch.analysis.statistics.draws import Draws, measure_level
from raypatch.analysis.statistics.inference import score_interval
from raypatch.analysis.statistics.patients import by_patient
from raypatch.analysis.statistics.stacks import Stack
from raypatch.analysis.wording import UNDEFINED, score_with_interval
from raypatch.data.catalog import SPLITS, Split
from raypatch.predict import FinishedTrial, timm_loads
from raypatch.results import read_predictions
from raypatch.storage.files import write_atomically
from raypatch.tasks import find_task, task_metrics
from raypatch.words import counted

NAN = float("nan")
NO_LICENCE = "not stated"
RARE = 100
"""Images of a class below which a card warns of it."""


def write_card(member: FinishedTrial, out: Path, licence: str | None = None) -> list[Path]:
    """Write README.md, as the Hugging Face hub shows it, and card.html beside a model exported to `out`."""
    report = compose_card(member, licence)
    page, readme = out / "card.html", out / "README.md"
    write_atomically(page, render_page(report).encode())
    text = "\n".join([*_front_matter(member, licence), report_markdown(report), *_how_to_load(member)])
    write_atomically(readme, text.encode())
    return [readme, page]


def compose_card(member: FinishedTrial, licence: str | None = None) -> Report:
    """Return the card. Raises DamagedFileError where the trial's predictions cannot be read."""
    facts, config = member.dataset, member.config
    val, test = _stack(member, "val"), _stack(member, "test")
    scores = scores_table(member, test)
    sections = [
        Section("model", "The model", (model_table(member, licence),)),
        Section("data", "The data", (data_table(member),)),
        Section("scores", "Scores on the test split", (scores,)),
    ]
    operating = examine_stacks(val, test, find_task(facts.task), facts.classes, None)["operating"]
    named = operating.assign(dataset_label=config.dataset_label)
    sections.append(Section("decisions", "Decisions", (operating_table(named, [], [], None),)))
    first = scores.blocks[0][0]
    return Report(
        title=f"{config.model.partition('.')[0]} for {config.dataset_label}",
        lead=f"A model that tells {_listed(facts.classes)} apart, trained with raypatch as {member.result.trial_id}.",
        statements=(
            Statement(
                "What it is",
                f"{facts.task.capitalize()} classification of {facts.dimensions}D images of {_pixels(member)}.",
                (f"On its test split: {first[0].text} {first[1].text} %.",),
            ),
        ),
        notes=tuple(_limits(member, test)),
        sections=tuple(sections),
        method=(
            "Scores are of one trained model on the test split, read once after training, with 95 % intervals for"
            " other test images (patients, where they are known).",
            "The epoch and all thresholds were chosen on the validation split.",
        ),
        main=scores,
    )


def _stack(member: FinishedTrial, split: Split) -> Stack:
    found = read_predictions(member.paths.predictions, split)
    return Stack(found.index, found.label, found.probability[None], found.group)


def _pixels(member: FinishedTrial) -> str:
    edge = str(member.config.image_size)
    return f"{' x '.join([edge] * member.dataset.dimensions)} pixels"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def model_table(member: FinishedTrial, licence: str | None) -> Table:
    """Return what the model is and how it was trained."""
    config, facts, model = member.config, member.dataset, member.model
    said: list[tuple[str, object]] = [
        ("Architecture", config.model),
        ("Weights", f"{model.parameters:,}"),
        ("GFLOPs per image", f"{model.gflops:.3g}"),
        ("Input", f"{_pixels(member)}, {'grey or colour as three channels' if facts.channels == 3 else 'grey'}"),
        ("Output", f"a probability for each of {', '.join(facts.classes)}"),
        ("Started from", config.weights),
        ("Trained by", f"{config.method}, {member.result.epochs} epochs, the best is {member.result.best_epoch}"),
        ("Batch size, learning rate", f"{config.batch_size}, {config.lr:g}"),
        ("Seed", config.seed),
        ("Software", ", ".join(f"{name} {value}" for name, value in _software(member))),
        ("Licence", licence or NO_LICENCE),
    ]
    return Table(
        name="model",
        title="What it is and how it was trained",
        columns=("", "This model"),
        blocks=(tuple(text_cells(row) for row in said),),
        labels=2,
        data=pd.DataFrame(said, columns=["fact", "value"]),
    )


def _software(member: FinishedTrial) -> Iterator[tuple[str, str]]:
    for name in ("raypatch", "torch", "timm"):
        if name in member.result.provenance:
            yield name, member.result.provenance[name]


def data_table(member: FinishedTrial) -> Table:
    """Return the images of each class and the patients in each split."""
    facts = member.dataset
    rows = []
    for place, name in enumerate(facts.classes):
        counts = [f"{split[place]:,}" if split else UNDEFINED for split in facts.balance or ((), (), ())]
        rows.append((name, *counts))
    rows.append(("all", *(f"{count:,}" for count in facts.counts)))
    patients = [UNDEFINED if count is None else f"{count:,}" for count in facts.patients or (None, None, None)]
    rows.append(("patients", *patients))
    return Table(
        name="data",
        title=f"Images of {member.config.dataset_label} by class and split",
        columns=("Class", *(split.capitalize() for split in SPLITS)),
        blocks=(tuple(text_cells(row) for row in rows),),
        data=pd.DataFrame(rows, columns=["class", *SPLITS]),
    )


def scores_table(member: FinishedTrial, test: Stack) -> Table:
    """Return every score with its interval, per image and, where patients are known, per patient."""
    task = find_task(member.dataset.task)
    found = by_patient(test)
    stacks = {"per image": test}
    if found is not None and len(found.stack.label):
        stacks["per patient"] = found.stack
    ordered = sorted(task_metrics(task), key=lambda metric: metric.name != task.default_metric)
    rows, numbers = [], []
    for metric in (*(metric for metric in ordered if metric.always_shown), *CALIBRATION):
        cells = [metric.label]
        for unit, stack in stacks.items():
            level = measure_level(stack, task, metric, Draws(task.strata(stack.label), groups=stack.group))
            value = score_interval(level, bounds=metric.bounds)
            cells.append(score_with_interval(value.estimate, NAN, value.low, value.high))
            numbers.append((metric.name, unit, value.estimate, value.low, value.high))
        rows.append(text_cells(cells))
    return Table(
        name="scores",
        title="Scores with 95 % intervals",
        columns=("", *(unit.capitalize() for unit in stacks)),
        blocks=(tuple(rows),),
        note="Percent. Of calibration error and Brier score less is better.",
        data=pd.DataFrame(numbers, columns=["metric", "unit", "mean", "low", "high"]),
    )


def _limits(member: FinishedTrial, test: Stack) -> Iterator[str]:
    """What the model must not be taken for."""
    facts = member.dataset
    yield "For research. It is no medical device, and no one has tested it where decisions about patients are made."
    yield (
        f"Trained and tested on {member.config.dataset_label} alone: other scanners, sites and patients may lower its"
        " scores, which `raypatch evaluate` measures."
    )
    yield f"It always answers with one of its classes ({', '.join(facts.classes)}), whatever the image shows."
    if test.group is None:
        yield "The data do not say who is on an image: the same patient may be in training and test."
    counts = np.array([sum(split[place] for split in facts.balance) for place in range(len(facts.classes))])
    if facts.balance and counts.min() < RARE:
        rare = facts.classes[int(counts.argmin())]
        images = counted(int(counts.min()), "image")
        yield f"Rare in the data: {rare}, {images} in all; what is said of it is uncertain."


def _front_matter(member: FinishedTrial, licence: str | None) -> list[str]:
    """What the hub reads: YAML between two rules."""
    lines = ["---", f"license: {licence or 'other'}"]
    if licence is None:
        lines.append("license_name: not-stated")
    if timm_loads(member):
        lines += ["library_name: timm", "pipeline_tag: image-classification"]
    return [*lines, "tags:", "- medical", "- raypatch", "---", ""]


def _how_to_load(member: FinishedTrial) -> list[str]:
    lines = ["## How to load", "", "```python"]
    if timm_loads(member):
        lines += ["import timm", 'model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()', "# or", ""]
    lines += ["from pathlib import Path", "from raypatch.predict import load_exported"]
    return [*lines, 'model = load_exported(Path("FOLDER"))', "```", ""]
