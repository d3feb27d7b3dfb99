"""What is explained: trials of a finished run, each with its model and some of its test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypatch.config import RunOptions
from raypatch.data.batches.augment import channels_first
from raypatch.data.batches.resize import held_size, pad_centred, resize_images
from raypatch.data.source import load_masks, load_split
from raypatch.machine.runtime import resolve_device
from raypatch.models.build import BuiltModel
from raypatch.models.families import find_family
from raypatch.models.prepared import PreparedModel, place_model
from raypatch.predict import FinishedTrial, FinishedTrials, choose_members, load_model
from raypatch.predict.choose import best_level, choose_dataset, of_one_seed
from raypatch.results import Predictions, read_predictions
from raypatch.trial_fields.data import Resize

MOST_IMAGES = 512
"""Images that are explained unless more are asked for."""


@dataclass(frozen=True)
class Subject:
    """A trial with N of its test images.

    level: of the factors that the run compares, in words. images: uint8 (N, C, *spatial), in the size
    in which the trial held them. predictions: of these, as the trial stored them. masks: bool
    (N, *spatial) in the model's size, what they mark; None where the data has none.
    """

    member: FinishedTrial
    level: str
    prepared: PreparedModel
    images: Tensor
    predictions: Predictions
    masks: NDArray[np.bool_] | None


def choose_subjects(
    found: FinishedTrials, dataset: str | None, levels: Sequence[str] | None, trial: str | None
) -> list[FinishedTrial]:
    """Return the trials to explain: the one named; those of the levels named, of one seed; or for each dataset one of
    each level, of one seed where one has them all.

    Raises ValueError where there is none.
    """
    if trial is not None:
        named = [one for one in found.trials if one.result.trial_id == trial]
        if not named:
            some = ", ".join(sorted(one.result.trial_id for one in found.trials)[:5])
            raise ValueError(f"the run has no finished trial {trial!r}; it has {some} ...")
        return named
    if levels is not None:
        return choose_members(found, dataset, levels)
    datasets = sorted({one.config.dataset for one in found.trials})
    if dataset is not None:
        datasets = [choose_dataset(found.trials, dataset)]
    chosen = []
    for name in datasets:
        chosen += _one_of_each_level(found, name)
    return chosen


def _one_of_each_level(found: FinishedTrials, dataset: str) -> list[FinishedTrial]:
    by_level: dict[tuple[str | None, ...], list[FinishedTrial]] = {}
    for trial in found.trials:
        if trial.config.dataset == dataset:
            by_level.setdefault(found.levels[trial.result.trial_id], []).append(trial)

    def place(levels: tuple[str | None, ...]) -> list[int]:
        pairs = zip(found.factors, levels, strict=True)
        return [-1 if level is None else factor.rank(level) for factor, level in pairs]

    candidates = []
    for levels in sorted(by_level, key=place):
        candidates.append(best_level(found, by_level[levels]))
    try:
        return of_one_seed(candidates)
    except ValueError:
        # No seed has finished everywhere: the first of each level still shows what it does.
        return [trials[0] for trials in candidates]


def level_words(found: FinishedTrials, trial: FinishedTrial) -> str:
    """Return a trial's level of each factor, in words."""
    phrases = []
    for factor, level in zip(found.factors, found.levels[trial.result.trial_id], strict=True):
        phrases.append("none" if level is None else factor.phrase(level))
    return ", ".join(phrases)


def open_subject(member: FinishedTrial, level: str, options: RunOptions, count: int | None) -> Subject:
    """Load a trial's model, in float32, and `count` of its test images; None takes all up to MOST_IMAGES.

    The images are the same for all trials on a dataset. Raises ValueError where the model or the data
    cannot be had, and for more images than there are.
    """
    config, facts = member.config, member.dataset
    data_dir, files = options.data_dir, options.files
    stored = load_split(config.source, "test", fold=config.fold, data_dir=data_dir, files=files).images
    rows = _choose_rows(len(stored), count, config.dataset_label)
    images = channels_first(stored[rows], dimensions=facts.dimensions)
    size = held_size(images.shape[-1], config.image_size, config.resize)
    masks = load_masks(config.source, "test", fold=config.fold, data_dir=data_dir, files=files)
    device = resolve_device(options.device)
    means, deviations = find_family(config.model).normalisation(config)
    built = BuiltModel(load_model(member), means, deviations)
    return Subject(
        member=member,
        level=level,
        prepared=place_model(config, built, member.model, device, "float32"),
        images=resize_images(images, size, config.resize),
        predictions=read_predictions(member.paths.predictions, "test").take(rows),
        masks=None if masks is None else _as_model_sees(masks[rows], config.image_size, config.resize),
    )


def _choose_rows(available: int, count: int | None, dataset: str) -> NDArray[np.int64]:
    if count is not None and not 1 <= count <= available:
        raise ValueError(
            f"--images {count}: the test split of {dataset} has {available}; give 1 to {available}, or leave it out"
            f" for all up to {MOST_IMAGES}"
        )
    shuffled = np.random.default_rng(0).permutation(available)
    return np.sort(shuffled[: count or MOST_IMAGES])


def _as_model_sees(masks: NDArray[np.uint8], size: int, mode: Resize) -> NDArray[np.bool_]:
    """What the masks mark, of whatever class, in the geometry of the model's input."""
    marked = torch.from_numpy(masks > 0).to(torch.uint8)[:, None] * 255
    seen: NDArray[np.uint8] = shown_images(marked, size, mode)[:, 0].numpy()
    return seen > 127


def shown_images(images: Tensor, size: int, mode: Resize) -> Tensor:
    """Return images uint8 (N, C, *spatial) as the model sees them, before normalisation: (N, C, *size)."""
    return (
        pad_centred(resize_images(images, size, mode), size)
        if mode == "pad_mean"
        else resize_images(images, size, mode)
    )
