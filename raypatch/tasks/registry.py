"""Tasks and metrics by name: shipped, of a module of one's own (module:NAME),
or of an installed package.
"""

import difflib
import functools
import importlib.metadata

from raypatch.registry import Registry, load_address, missing_parts
from raypatch.tasks.metrics import ACCURACY, AUC, BALANCED_ACCURACY, LOSS, MACRO_RECALL, QUADRATIC_KAPPA
from raypatch.tasks.overlap import DICE, IOU, POOLED_DICE, POOLED_IOU
from raypatch.tasks.protocols import ClassTask, MaskTask, Metric, Task

METRIC_GROUP = "raypatch.metrics"
"""Entry points of installed packages that hold further metrics."""

TASKS: Registry[Task] = Registry(
    "task",
    Task,
    group="raypatch.tasks",
    shipped={
        "binary": "raypatch.tasks.classification:BINARY",
        "multiclass": "raypatch.tasks.classification:MULTICLASS",
        "ordinal": "raypatch.tasks.classification:ORDINAL",
        "multilabel": "raypatch.tasks.classification:MULTILABEL",
        "segmentation": "raypatch.tasks.segmentation:SEGMENTATION",
    },
)

SHIPPED_METRICS = (
    *(LOSS, ACCURACY, BALANCED_ACCURACY, AUC, QUADRATIC_KAPPA, MACRO_RECALL),
    *(DICE, IOU, POOLED_DICE, POOLED_IOU),
)


def find_task(name: str) -> Task:
    """Return the task called `name`: binary, multiclass, ordinal, multilabel, segmentation,
    module:NAME or of an installed package.

    Raises ValueError for an unknown one and for one that lacks a part of the protocol.
    """
    task = TASKS.find(name)
    wanted: type = MaskTask if task.reads == "masks" else ClassTask
    lacking = missing_parts(task, wanted)
    if lacking:
        raise ValueError(
            f"{name} is no task on {task.reads}: it lacks {', '.join(lacking)};"
            f" what each part does stands in {wanted.__module__}.{wanted.__name__}"
        )
    return task


def reads_masks(name: str | None) -> bool:
    """Whether the task that a trial names is one on masks; one that it does not name is not."""
    return name is not None and find_task(name).reads == "masks"


@functools.cache
def installed_metrics() -> tuple[Metric, ...]:
    """The metrics that installed packages add. Raises ValueError for one that is no Metric."""
    found = []
    for entry in importlib.metadata.entry_points(group=METRIC_GROUP):
        metric = load_address(entry.value.replace(" ", ""), what="metric")
        if not isinstance(metric, Metric):
            raise ValueError(
                f"the metric {entry.name} ({entry.value}) must be a raypatch.tasks.Metric",
            )
        found.append(metric)
    return tuple(found)


def task_metrics(task: Task) -> tuple[Metric, ...]:
    """The metrics of a task in display order: its own,
    then those that installed packages add to it.
    """
    own = {metric.name for metric in task.metrics}
    added = []
    for metric in installed_metrics():
        # A task's own metric of that name wins: it was made for the task.
        if task.name in metric.tasks and metric.name not in own:
            added.append(metric)
    return (*task.metrics, *added)


def score_names(task: Task) -> tuple[str, ...]:
    """The scores that training computes in each epoch, so that a trial may be selected by them."""
    shown = [metric.name for metric in task_metrics(task) if metric.each_epoch]
    return (LOSS.name, *shown)


def find_metric(name: str, task: str | None = None) -> Metric:
    """Return the metric called `name`; `task`:
    the name of the one it is of, for a metric that only that one has.

    Raises ValueError with near names for an unknown one.
    """
    known = {metric.name: metric for metric in (*SHIPPED_METRICS, *installed_metrics())}
    # Only now: a task of one's own is imported for it.
    if name not in known and task is not None:
        known |= {metric.name: metric for metric in find_task(task).metrics}
    if name not in known:
        # Far from all of them: then show all.
        near = difflib.get_close_matches(name, known, n=3) or known
        raise ValueError(f"unknown metric {name!r}: use {', '.join(near)}")
    return known[name]
