"""Do the reported intervals cover the truth, and is a recipe significantly better than itself only as often as said?

    python benchmarks/statistics_coverage.py        about 5 minutes on one core

Made models of known truth. A model is right on an image where a normal sum is above 0: how easy the class is, how easy
the image is for all models, the model's own noise on it, the seed's skill, and the seed's leaning to one class. Writes
benchmarks/results/statistics_coverage.json.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raypatch.analysis.statistics.draws import Draws, draw_images, measure_level
from raypatch.analysis.statistics.inference import LevelScores, difference_interval, score_interval
from raypatch.analysis.statistics.stacks import Stack
from raypatch.machine.runtime import provenance
from raypatch.tasks import Weights, find_metric, find_task

SHARED = 0.6  # of the variance on an image: what all models find hard or easy
SPREADS = (0.0, 0.1, 0.25, 0.4)  # standard deviation of skill and of leaning over the seeds
SEEDS = (3, 5, 10)
RESAMPLES = 400
BATCH = 50  # simulations that share their resamples


@dataclass(frozen=True)
class Dataset:
    """Test images of each class, and the share of them that a seed without skill or leaning gets right."""

    images: tuple[int, ...]
    recall: tuple[float, ...]

    def label(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.images)), self.images)

    def leaning(self) -> NDArray[np.float64]:
        return np.where(self.label() % 2 == 0, 1.0, -1.0)

    def ease(self) -> NDArray[np.float64]:
        return np.asarray(stats.norm.ppf(self.recall))[self.label()]

    def truth(self, spread: float) -> float:
        """Balanced accuracy of a seed to come on images to come."""
        return float(stats.norm.cdf(stats.norm.ppf(self.recall) / math.sqrt(1 + 2 * spread**2)).mean())


DATASETS = {
    "breast": Dataset((42, 114), (0.6, 0.85)),
    "vessel": Dataset((43, 339), (0.55, 0.95)),
    "pneumonia": Dataset((234, 390), (0.75, 0.97)),
    "derma": Dataset((66, 103, 220, 23, 223, 1341, 29), (0.4, 0.55, 0.5, 0.3, 0.45, 0.93, 0.6)),
}
FAMILY = ("breast", "vessel", "pneumonia", "breast", "vessel")  # tested together, corrected together


def make_images(data: Dataset, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How easy each image is for all models, (count, N)."""
    return data.ease() + rng.normal(0, math.sqrt(SHARED), (count, len(data.label())))


def make_seeds(
    data: Dataset, images: NDArray[np.float64], seeds: int, spread: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """How clearly each seed is right on each image, (count, seeds, N); above 0 is right."""
    count = len(images)
    noise = rng.normal(0, math.sqrt(1 - SHARED), (count, seeds, images.shape[1]))
    skill, lean = rng.normal(0, spread, (2, count, seeds, 1))
    return images[:, None, :] + noise + skill + data.leaning() * lean


def balanced_levels(data: Dataset, clear: NDArray[np.float64], weights: Weights) -> list[LevelScores]:
    """Balanced accuracies of each simulation's seeds; as `measure_level`, for many simulations at once."""
    right = (clear > 0).astype(np.float32)
    label = data.label()
    classes = range(len(data.images))
    shares = np.stack([right[..., label == own].mean(axis=2, dtype=np.float64) for own in classes], axis=2)
    drawn = np.zeros((*right.shape[:2], weights.shape[1]))
    for own in classes:
        part = weights[label == own]
        drawn += right[..., label == own] @ part / part.sum(axis=0) / len(classes)
    counts = np.array(data.images, float)
    return [LevelScores(part.mean(axis=1), again, part, counts) for part, again in zip(shares, drawn, strict=True)]


def batches(simulations: int, data: Dataset, groups: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Weights]]:
    """Number of simulations and the resamples they share."""
    for start in range(0, simulations, BATCH):
        yield min(BATCH, simulations - start), draw_images(data.label(), RESAMPLES, start, groups)


def coverage(name: str, spread: float, seeds: int, simulations: int, rng: np.random.Generator) -> dict[str, object]:
    """Share of simulations whose interval holds the true balanced accuracy."""
    data = DATASETS[name]
    truth = data.truth(spread)
    covered, widths, deviations = [], [], []
    for count, weights in batches(simulations, data):
        clear = make_seeds(data, make_images(data, count, rng), seeds, spread, rng)
        for level in balanced_levels(data, clear, weights):
            found = score_interval(level)
            covered.append(found.low <= truth <= found.high)
            widths.append(found.high - found.low)
            deviations.append(level.plain.std(ddof=1))
    return {
        "dataset": name,
        "spread": spread,
        "seeds": seeds,
        "truth": percent(truth),
        "seed_deviation": percent(np.mean(deviations)),
        "coverage": percent(np.mean(covered)),
        "width": percent(np.mean(widths)),
    }


def size(
    spread: float, seeds: int, simulations: int, rng: np.random.Generator, *, other: float | None = None
) -> dict[str, object]:
    """How often p < 0.05 for equally good levels: of each test, and of any in a family after Holm's correction.

    other: spread of the second level's seeds; its mean score stays the first one's. Default: the same recipe twice.
    """
    columns = [_null_tests(DATASETS[name], (spread, other), seeds, simulations, rng) for name in FAMILY]
    p = np.array(columns)
    any_corrected = p.min(axis=0) * len(FAMILY) < 0.05  # the first step of Holm's correction decides on any
    return {
        "spread": spread,
        "other_spread": spread if other is None else other,
        "seeds": seeds,
        "significant": percent((p < 0.05).mean()),
        "any_after_holm": percent(any_corrected.mean()),
    }


def _null_tests(
    data: Dataset, spreads: tuple[float, float | None], seeds: int, simulations: int, rng: np.random.Generator
) -> list[float]:
    first, second = spreads[0], spreads[0] if spreads[1] is None else spreads[1]
    level_out = math.sqrt((1 + 2 * second**2) / (1 + 2 * first**2))
    found = []
    for count, weights in batches(simulations, data):
        images = make_images(data, count, rng)
        one = make_seeds(data, images, seeds, first, rng)
        shifted = images + (level_out - 1) * data.ease()
        two = make_seeds(data, shifted, seeds, second, rng)
        pairs = zip(balanced_levels(data, one, weights), balanced_levels(data, two, weights), strict=True)
        found += [difference_interval(*pair).p for pair in pairs]
    return found


def coverage_of_median(spread: float, simulations: int, rng: np.random.Generator) -> dict[str, object]:
    """The median over three seeds on breast."""
    data = DATASETS["breast"]
    skill, lean = rng.normal(0, spread, (2, 100_000, 1))
    sides = np.where(np.arange(len(data.images)) % 2 == 0, 1.0, -1.0)
    truth = float(np.median(stats.norm.cdf(stats.norm.ppf(data.recall) + skill + sides * lean).mean(axis=1)))
    covered = []
    for count, weights in batches(simulations, data):
        clear = make_seeds(data, make_images(data, count, rng), 3, spread, rng)
        for level in balanced_levels(data, clear, weights):
            found = score_interval(level, centre="median")
            covered.append(found.low <= truth <= found.high)
    return {"case": "median over three seeds", "spread": spread, "coverage": percent(np.mean(covered))}


def coverage_of_one_seed(spread: float, simulations: int, rng: np.random.Generator) -> dict[str, object]:
    """One seed on breast: its own score on images to come, which is all that its interval speaks of."""
    data = DATASETS["breast"]
    covered = []
    sides = np.where(np.arange(len(data.images)) % 2 == 0, 1.0, -1.0)
    for count, weights in batches(simulations, data):
        skill, lean = rng.normal(0, spread, (2, count, 1))
        own = make_images(data, count, rng) + skill + data.leaning() * lean
        clear = make_seeds(data, own, 1, 0.0, rng)
        truth = stats.norm.cdf(stats.norm.ppf(data.recall) + skill + sides * lean).mean(axis=1)
        for level, wanted in zip(balanced_levels(data, clear, weights), truth, strict=True):
            found = score_interval(level)
            covered.append(found.low <= wanted <= found.high)
    return {"case": "one seed, its own score", "spread": spread, "coverage": percent(np.mean(covered))}


def coverage_of_patients(simulations: int, rng: np.random.Generator, *, told: bool) -> dict[str, object]:
    """Three seeds on breast, three images of each patient, of whom half of what is hard or easy stems."""
    data = DATASETS["breast"]
    truth = data.truth(0.1)
    patient = np.arange(len(data.label())) // 3
    covered = []
    for count, weights in batches(simulations, data, patient if told else None):
        of_patient = rng.normal(0, math.sqrt(SHARED), (count, patient.max() + 1))[:, patient]
        of_image = make_images(data, count, rng) - data.ease()
        images = data.ease() + math.sqrt(0.8) * of_patient + math.sqrt(0.2) * of_image
        clear = make_seeds(data, images, 3, 0.1, rng)
        for level in balanced_levels(data, clear, weights):
            found = score_interval(level)
            covered.append(found.low <= truth <= found.high)
    case = "patients of three images, " + ("told" if told else "not told")
    return {"case": case, "spread": 0.1, "coverage": percent(np.mean(covered))}


def coverage_of_metric(metric: str, spread: float, simulations: int, rng: np.random.Generator) -> dict[str, object]:
    """Accuracy, with classes as often as they come, or AUC on breast by the product's own functions; three seeds."""
    data = DATASETS["breast"]
    shares = np.array(data.images) / sum(data.images)
    ease = stats.norm.ppf(data.recall)
    truth = float(shares @ stats.norm.cdf(ease / math.sqrt(1 + 2 * spread**2)))
    if metric == "auc":
        truth = float(stats.norm.cdf(ease.sum() / math.sqrt(2 + 4 * spread**2)))
    covered = []
    for _ in range(simulations):
        drawn = tuple(rng.multinomial(sum(data.images), shares))
        images = Dataset(drawn, data.recall)
        clear = make_seeds(images, make_images(images, 1, rng), 3, spread, rng)[0]
        sure = stats.norm.cdf(images.leaning() * -clear)  # of class 1
        stack = Stack(np.arange(len(sure[0])), images.label(), np.stack([1 - sure, sure], axis=2).astype(np.float32))
        draws = Draws(stack.label, RESAMPLES, int(rng.integers(1 << 30)))
        found = score_interval(measure_level(stack, find_task("binary"), find_metric(metric), draws))
        covered.append(found.low <= truth <= found.high)
    return {"case": f"{metric}, three seeds", "spread": spread, "coverage": percent(np.mean(covered))}


def percent(share: float | np.floating) -> float:
    """In percent, to a tenth."""
    return round(100 * float(share), 1)


def main() -> None:
    """Simulate every cell and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "statistics_coverage.json")
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    count = arguments.simulations
    content: dict[str, list[dict[str, object]]] = {"coverage": [], "size": [], "others": []}

    def add(part: str, row: dict[str, object]) -> None:
        content[part].append(row)
        print(part, json.dumps(row), flush=True)

    for seeds in SEEDS:
        for spread in SPREADS:
            for name in DATASETS:
                add("coverage", coverage(name, spread, seeds, count, rng))
            add("size", size(spread, seeds, count, rng))
    for spread in SPREADS:
        add("size", size(spread, 3, count, rng, other=0.3 * spread))
        add("others", coverage_of_median(spread, count, rng))
        add("others", coverage_of_one_seed(spread, count, rng))
        for metric in ("accuracy", "auc"):
            add("others", coverage_of_metric(metric, spread, count, rng))
    for told in (True, False):
        add("others", coverage_of_patients(count, rng, told=told))
    head = {"simulations": count, "resamples": RESAMPLES, "provenance": provenance()}
    arguments.out.write_text(json.dumps(head | content, indent=1) + "\n")


if __name__ == "__main__":
    main()
