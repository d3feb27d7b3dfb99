"""Every file name of a run folder and of its trial folders, spelled once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrialPaths:
    """Every file of one trial folder.

    shared: the folder of what trials of a run share; beside the trial's files where it has no run.
    """

    folder: Path
    shared: Path | None = None

    def sibling(self, trial_id: str) -> "TrialPaths":
        """The files of another trial of the same run."""
        return TrialPaths(self.folder.parent / trial_id, self.shared)

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def epochs(self) -> Path:
        return self.folder / "epochs.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best_weights(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions.npz"

    @property
    def examples(self) -> Path:
        """Of a segmentation: some test images with their masks."""
        return self.folder / "examples.npz"

    @property
    def masks(self) -> Path:
        """Of a segmentation that was asked for them: the probabilities of all pixels."""
        return self.folder / "masks.npz"

    @property
    def features(self) -> Path:
        """Stored features, and the frozen backbones that made them."""
        return self.shared or self.folder / "features"

    @property
    def log(self) -> Path:
        return self.folder / "train.log"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    def event_files(self) -> list[Path]:
        """TensorBoard's: one at most, named by when and where it was begun."""
        # Sorted, as everywhere: a file system lists in an order of its own.
        return sorted(self.folder.glob("events.out.tfevents.*"))

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"


@dataclass(frozen=True)
class ExplanationPaths:
    """Every file of what `raypatch explain` found, in a folder of the run."""

    folder: Path

    @property
    def distances(self) -> Path:
        """Attention distances: a row per trial, layer and head."""
        return self.folder / "attention_distance.csv"

    @property
    def saliency(self) -> Path:
        """Measures of the maps: a row per trial, image and map."""
        return self.folder / "saliency.csv"

    def pictures(self, trial_id: str) -> Path:
        """Some images with their maps."""
        return self.folder / f"{trial_id}.npz"


@dataclass(frozen=True)
class SweepPaths:
    """Every file of one run folder."""

    folder: Path

    @property
    def space(self) -> Path:
        return self.folder / "space.yaml"

    @property
    def record(self) -> Path:
        return self.folder / "sweep.json"

    @property
    def twins(self) -> Path:
        """Which test images repeat an image of train or val."""
        return self.folder / "twins.json"

    @property
    def trials(self) -> Path:
        return self.folder / "trials"

    @property
    def studies(self) -> Path:
        """Of a search: Optuna's view of it, for optuna-dashboard,
        made anew from the trial folders at every start.
        """
        return self.folder / "optuna.journal"

    @property
    def recipes(self) -> Path:
        """Of a search: the best fields of each group."""
        return self.folder / "best.yaml"

    @property
    def report(self) -> Path:
        return self.folder / "report"

    @property
    def explanation(self) -> "ExplanationPaths":
        return ExplanationPaths(self.folder / "explain")

    @property
    def mlflow(self) -> Path:
        """MLflow's store, where no server was named."""
        return self.folder / "mlflow.db"

    @property
    def stop(self) -> Path:
        """Exists while the sweep is asked to stop."""
        return self.folder / ".stop"

    @property
    def lock(self) -> Path:
        return self.folder / ".lock"

    @property
    def bookkeeping(self) -> Path:
        """Ray Tune's own, while a sweep runs on a cluster; nothing reads it."""
        return self.folder / ".ray"

    @property
    def features(self) -> Path:
        """Stored features, which the trials share: a folder for each kind, and the frozen backbones."""
        return self.folder / "features"

    def trial(self, trial_id: str) -> TrialPaths:
        return TrialPaths(self.trials / trial_id, self.features)

    def trial_folders(self) -> list[TrialPaths]:
        """The trial folders that exist, sorted by name; hidden ones, as a notebook makes them, are none."""
        # A run that was stopped before its first trial has no such folder.
        if not self.trials.is_dir():
            return []
        folders = []
        for entry in sorted(self.trials.iterdir()):
            if entry.is_dir() and not entry.name.startswith("."):
                folders.append(TrialPaths(entry, self.features))
        return folders
