"""What goes to others: a run's results without weights and images, and an exported model to the Hugging Face hub."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from raypatch.data.catalog import Split
from raypatch.results import (
    Predictions,
    SweepPaths,
    TrialPaths,
    read_predictions,
    read_result,
    read_sweep,
    write_json,
    write_predictions,
)


def export_results(run: Path, out: Path, *, with_names: bool = False) -> tuple[Path, int]:
    """Copy all that a report needs of a run into the folder `out`; return it and how many trials it holds.

    Left out: weights, checkpoints, logs and where own files lay; the study and the command stay as
    they were typed. Patients become numbers and images lose their names, which a report does not
    need; with_names keeps both. Raises ValueError for a folder
    that is no run folder and for an `out` that has something in it.
    """
    source, target = SweepPaths(run), SweepPaths(out)
    if not source.trials.is_dir():
        raise ValueError(f"{run} is no run folder with trials: give one that `raypatch run` made")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: give a new folder with --out")
    try:
        return out, _copy_run(source, target, with_names=with_names)
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error.strerror or error}; give another --out") from error


def _copy_run(source: SweepPaths, target: SweepPaths, *, with_names: bool) -> int:
    target.trials.mkdir(parents=True)
    if source.record.exists():
        record = read_sweep(source.record)
        # The paths on this machine are nobody's concern.
        options = {name: value for name, value in record.options.items() if name not in ("files", "data_dir")}
        write_json(target.record, record.model_copy(update={"options": options}))
    for path in (source.space, source.twins, source.recipes):
        if path.exists():
            shutil.copyfile(path, target.folder / path.name)
    copied = 0
    for paths in source.trial_folders():
        if read_result(paths.result) is not None:
            _copy_trial(paths, target.trial(paths.folder.name), with_names=with_names)
            copied += 1
    return copied


def _copy_trial(source: TrialPaths, target: TrialPaths, *, with_names: bool) -> None:
    target.folder.mkdir()
    for path in (source.config, source.epochs, source.result):
        if path.exists():
            shutil.copyfile(path, target.folder / path.name)
    if not source.predictions.exists():
        return
    splits: dict[Split, Predictions] = {}
    names: tuple[Split, ...] = ("val", "test")
    for split in names:
        found = read_predictions(source.predictions, split)
        splits[split] = found if with_names else without_names(found)
    write_predictions(target.predictions, splits)


def without_names(found: Predictions) -> Predictions:
    """Return the predictions with a number for each patient, in the order of their names, and no ids."""
    group = None if found.group is None else np.unique(found.group, return_inverse=True)[1].astype(np.int64)
    return Predictions(found.index, found.label, found.probability, group)


def upload(folder: Path, name: str, environment: Mapping[str, str] = os.environ) -> str:
    """Upload an exported folder to the Hugging Face hub as OWNER/NAME, private if it is new; return its address.

    The token is $HF_TOKEN or that of `hf auth login`; $HF_ENDPOINT is another hub. Raises ValueError
    without a token, for a name of another form, and when the hub refuses.
    """
    owner, separator, model = name.partition("/")
    if not (owner and separator and model) or "/" in model:
        raise ValueError(f"--upload {name!r} must be OWNER/NAME, as models are called on the hub")
    # Heavy, and only an upload needs it.
    from huggingface_hub import HfApi, errors, get_token

    token = environment.get("HF_TOKEN") or get_token()
    if not token:
        raise ValueError("--upload needs a token of the Hugging Face hub that may write: set HF_TOKEN")
    # What the hub refuses is one too. Whose class it is hangs on the release of huggingface_hub.
    no_answer = errors.HTTPError  # type: ignore[attr-defined]  # imported there, not exported
    hub = HfApi(endpoint=environment.get("HF_ENDPOINT") or None, token=token)
    try:
        hub.create_repo(name, private=True, exist_ok=True)
        done = hub.upload_folder(repo_id=name, folder_path=folder, commit_message="Model exported by raypatch")
    except (no_answer, OSError) as error:
        raise ValueError(f"the hub did not take {name}: {error}; the model is in {folder}") from error
    return str(done)
