"""Before a run: how many seeds a difference takes on a study's test images, and what its own can show."""

from dataclasses import asdict, dataclass

import numpy as np

from raypatch.analysis.statistics.power import MOST_SEEDS, least_difference, plan_seeds
from raypatch.config import RunOptions, TrialConfig
from raypatch.data.layout.archive import DataError
from raypatch.data.source import describe, load_labels


@dataclass(frozen=True)
class Detection:
    """What a dataset's test images allow.

    images: of each class, equal shares where the file is not at hand; exact: whether it was. seeds:
    of each level, for the asked difference; None where no number is enough. planned: seeds of the
    study. least: the smallest difference, in points, that these show; None for a single seed or
    where nothing would be seen.
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
    by_dataset: dict[str, list[TrialConfig]] = {}
    for config in trials:
        by_dataset.setdefault(config.dataset, []).append(config)
    level, spread = score / 100, seed_spread / 100
    found = []
    for own in by_dataset.values():
        planned = len({config.seed for config in own})
        # Every size has the same images.
        images, exact = _count_images(own[0].source, options)
        least = least_difference(images, planned, score=level, seed_deviation=spread)
        found.append(
            Detection(
                dataset=own[0].dataset_label,
                images=images,
                exact=exact,
                seeds=plan_seeds(images, points / 100, score=level, seed_deviation=spread),
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
        # A plan must not wait for a download: it goes by what the catalog says.
        share = info.counts[2] / len(info.classes)
        return [max(round(share), 1)] * len(info.classes), False
    if labels.ndim == 2:
        # With several labels each asks all images, some of which have it.
        return [len(labels)], True
    counts = np.bincount(labels)
    return counts[counts > 0].tolist(), True


def as_lines(found: list[Detection], points: float, score: float, seed_spread: float) -> str:
    """Return it for people."""
    lines = [
        f"A difference of {points:g} points of balanced accuracy, seen in four of five studies"
        f" (two-sided 5 %), where scores are about {score:g} %"
        f" and seeds differ by {seed_spread:g} points (standard deviation):"
    ]
    for one in found:
        images = " + ".join(map(str, one.images)) + " test images"
        if not one.exact:
            images = f"about {sum(one.images)} test images, classes taken as equally frequent: no file at hand"
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
