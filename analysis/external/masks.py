"""Masks of images of another source, by a run's best segmentation, and what is written of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from raypatch.analysis.answer.scores.mask_ensembles import have_pixels, mean_masks
from raypatch.analysis.external.scores import Asked, Tested, compare_scores, internal_stack, without_learnt
from raypatch.analysis.external.seen import find_seen
from raypatch.analysis.show.external import EXTERNAL, INTERNAL, Compared
from raypatch.analysis.show.external_masks import compose_external_masks
from raypatch.analysis.show.gallery import Gallery
from raypatch.analysis.show.mask_gallery import make_mask_gallery
from raypatch.analysis.statistics.diagnostics import mask_scores
from raypatch.analysis.statistics.stacks import Stack
from raypatch.data.batches.resize import resize_images
from raypatch.predict import FinishedTrial, PredictedMasks, read_mask_truth
from raypatch.predict.source import Source
from raypatch.predict.weights import prepare_member
from raypatch.results import SweepPaths
from raypatch.results.masks import Examples
from raypatch.tasks import MaskTask, Metric, find_task, task_metrics
from raypatch.tasks.overlap import dice_of_images
from raypatch.training.kept_masks import pixel_probabilities, spread_over


@dataclass(frozen=True)
class _Predicted:
    """External masks. seeds: a member each. mean: one member, what the mean of their probabilities predicts.

    masks: (N, H, W), by the mean.
    """

    seeds: Stack
    mean: Stack
    masks: NDArray[np.uint8]


def evaluate_masks(run: Path, asked: Asked, members: Sequence[FinishedTrial], source: Source) -> Tested:
    """Test the members, seeds of one recipe of a segmentation, on the images and masks of an .npz.

    Raises ValueError for a source without masks, for masks that do not fit its images, for classes
    that are none of the model's, and for what only classes have.
    """
    if asked.sensitivity is not None:
        raise ValueError(
            f"--sensitivity {asked.sensitivity:g} chooses thresholds of classes, and {run} has segmentations, whose"
            " pixels take their most probable class: leave it out"
        )
    best = members[0]
    truth = read_mask_truth(source, best.dataset, asked.rename)
    images = source.read(best.config, best.dataset)
    seen = find_seen(run, best, source, images)
    found = _predict(members, images, truth, source.patients, asked.device)
    task = _task_of(best)
    internal = internal_stack(members, "test")
    stacks = {INTERNAL: internal, EXTERNAL: without_learnt(found.seeds, seen)}
    metrics = tuple(metric for metric in task_metrics(task) if metric.always_shown)
    classes = best.dataset.classes[1:]
    frames = {"scores": compare_scores(stacks, task, metrics), "classes": _by_class(stacks, classes)}
    if len(members) > 1:
        mean = without_learnt(found.mean, seen)
        frames["members"] = pd.concat(_by_member(members, stacks, mean, metrics), ignore_index=True)
    if len(stacks[EXTERNAL].label) < len(found.seeds.label):
        frames["everything"] = compare_scores({INTERNAL: internal, EXTERNAL: found.seeds}, task, metrics)
    compared = Compared(
        run=SweepPaths(run).folder.name,
        source=asked.data.name,
        members=tuple(member.result.trial_id for member in members),
        dataset=best.config.dataset_label,
        classes=classes,
        metrics=metrics,
        default_metric=task.default_metric,
        external=found.seeds,
        stacks=stacks,
        frames=frames,
        seen=seen,
    )
    gallery = _gallery(members, source, images, truth, found.masks, stacks[EXTERNAL].index)
    return Tested(compose_external_masks(compared, gallery), {"predictions.csv": _table(members, source, found)}, seen)


def _predict(
    members: Sequence[FinishedTrial],
    images: torch.Tensor,
    truth: NDArray[np.uint8],
    patients: NDArray[np.str_] | None,
    device: str,
) -> _Predicted:
    """Predict at the size of the true masks (N, H, W), one member at a time in memory."""
    task, classes = _task_of(members[0]), len(members[0].dataset.classes) - 1
    index = np.arange(len(truth))
    counts = []
    total: NDArray[np.float32] = np.zeros((), np.float32)
    for member in members:
        prepared, _ = prepare_member(member, device)
        probability = pixel_probabilities(prepared, images, truth.shape[1], task)
        counts.append(task.count(task.predicted_masks(probability), truth, classes)[0])
        total = total + probability
    masks = task.predicted_masks(total / len(members))
    of_mean, pixels = task.count(masks, truth, classes)
    label = pixels.astype(np.int64)
    return _Predicted(
        seeds=Stack(index, label, np.stack(counts).astype(np.float32), patients),
        mean=Stack(index, label, of_mean[None].astype(np.float32), patients),
        masks=masks,
    )


def _task_of(member: FinishedTrial) -> MaskTask:
    task = find_task(member.dataset.task)
    assert isinstance(task, MaskTask), "asked for masks alone"
    return task


def _by_class(stacks: dict[str, Stack], classes: tuple[str, ...]) -> pd.DataFrame:
    """`mask_scores` of each data, the mean over its members."""
    parts = []
    for name, stack in stacks.items():
        of_members = [mask_scores(counts, stack.label, classes) for counts in stack.probability]
        means = pd.concat(of_members).groupby("class", sort=False).mean()
        parts.append(means.assign(data=name, total=len(stack.label)).reset_index())
    return pd.concat(parts, ignore_index=True)


def _by_member(
    members: Sequence[FinishedTrial], stacks: dict[str, Stack], mean: Stack, metrics: Sequence[Metric]
) -> Iterator[pd.DataFrame]:
    """The scores of each seed, and of the mean of their probabilities, inside where the run has kept the pixels."""
    task = _task_of(members[0])
    for place, member in enumerate(members):
        own = {name: replace(stack, probability=stack.probability[[place]]) for name, stack in stacks.items()}
        yield compare_scores(own, task, metrics).assign(model=f"seed {member.config.seed}")
    together = {EXTERNAL: mean}
    paths = [member.paths for member in members]
    if have_pixels(paths):
        inside = mean_masks(paths, "test", task)
        # Pixels are kept in the order of the predictions, which know the patients.
        together = {INTERNAL: replace(inside, group=stacks[INTERNAL].group), EXTERNAL: mean}
    yield compare_scores(together, task, metrics).assign(model=f"mean of {len(members)}")


def _table(members: Sequence[FinishedTrial], source: Source, found: _Predicted) -> str:
    predicted = PredictedMasks(
        names=source.names,
        masks=tuple(found.masks),
        files=None,
        classes=members[0].dataset.classes,
        dice=dice_of_images(found.mean.probability[0], found.mean.label),
        members=tuple(member.result.trial_id for member in members),
        patients=source.patients,
    )
    return predicted.table()


def _gallery(
    members: Sequence[FinishedTrial],
    source: Source,
    images: torch.Tensor,
    truth: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    scored: NDArray[np.int64],
) -> Gallery:
    """Some of the scored images, by their index, with the masks of all members together."""
    index = scored[spread_over(len(scored))]
    examples = Examples(
        index=index,
        images=resize_images(images[index], truth.shape[1], "bilinear").numpy(),
        truth=truth[index],
        predicted=masks[index],
    )
    model = f"mean of {len(members)}" if len(members) > 1 else f"seed {members[0].config.seed}"
    return make_mask_gallery(
        {model: examples},
        name="masks_external",
        title=f"Masks: {source.path.name}",
        caption="Images of the other source spread evenly over those that are scored, the hardest first. Green: the"
        " truth; orange: the prediction. Beneath: the Dice of the image, in percent.",
        names=source.names,
    )
