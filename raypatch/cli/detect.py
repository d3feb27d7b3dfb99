"""Before a run: how many seeds a difference takes on a study's test images, and what its own seeds could show."""

from dataclasses import asdict, dataclass

import numpy as np

from raypatch.analysis.statistics.power import MOST_SEEDS, least_difference, plan_seeds
from raypatch.config import RunOptions, TrialConfig
from raypatch.data.archive import DataError
from raypatch.data.source import describe, load_labels


@dataclass(frozen=True)
class Detection:
    """What a dataset's test images allow. images: of each class, equal shares where the file is not at hand.

    seeds: of each level, for the asked difference; None where no number is enough. planned: seeds of the study. least:
    the smallest difference, in points, that these show; None for a single seed or where nothing would be seen.
    """

    dataset: str
    images: list[int]
    exact: bool
    seeds: int | None
    planned: int
    least: float | None


def plan_detection(
    trials: tuple[TrialConfig, ...], options: RunOptions, points: float, score: float, seed_spread: float
) -> list[Detection]:
    """Return what each dataset of the trials allows; points, score and spread of the seeds in percent."""
    found = []
    for dataset in dict.fromkeys(config.dataset for config in trials):
        own = [config for config in trials if config.dataset == dataset]
        planned = len({config.seed for config in own})
        images, exact = _count_images(dataset, options)
        assumed = {"score": score / 100, "seed_deviation": seed_spread / 100}
        least = least_difference(images, planned, **assumed)
        found.append(
            Detection(
                dataset=own[0].dataset_label,
                images=images,
                exact=exact,
                seeds=plan_seeds(images, points / 100, **assumed),
                planned=planned,
                least=None if least is None else round(100 * least, 1),
            )
        )
    return found


def _count_images(dataset: str, options: RunOptions) -> tuple[list[int], bool]:
    """Return the test images of each class, and whether they were counted."""
    info = describe(dataset, data_dir=options.data_dir, files=options.files)
    try:
        labels = load_labels(dataset, "test", data_dir=options.data_dir, files=options.files)
    except DataError:
        share = info.counts[2] / len(info.classes)
        return [max(round(share), 1)] * len(info.classes), False
    if labels.ndim == 2:  # several labels: each asks all images, some of which have it
        return [len(labels)], True
    return [int(count) for count in np.bincount(labels) if count], True


def as_lines(found: list[Detection], points: float, score: float, seed_spread: float) -> str:
    """Return it for people."""
    lines = [
        f"A difference of {points:g} points of balanced accuracy, seen in four of five studies (two-sided 5 %), where"
        f" scores are about {score:g} % and seeds differ by {seed_spread:g} points (standard deviation):"
    ]
    for one in found:
        shown = " + ".join(map(str, one.images)) if one.exact else f"about {sum(one.images)}"
        images = f"{shown} test images{'' if one.exact else ', classes taken as equally frequent: no file at hand'}"
        needed = f"{one.seeds} seeds of each level"
        if one.seeds is None:
            needed = f"too few test images for any number of seeds (up to {MOST_SEEDS})"
        own = "one seed shows nothing"
        if one.planned > 1:
            seen = "nothing" if one.least is None else f"{one.least:g} points or more"
            own = f"{one.planned} seeds, as planned, show {seen}"
        lines.append(f"  {one.dataset} ({images}): {needed}; {own}")
    return "\n".join(lines)


def as_data(found: list[Detection]) -> list[dict[str, object]]:
    """Return it for JSON."""
    return [asdict(one) for one in found]
