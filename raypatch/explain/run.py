"""A finished run explained: attention distances and saliency maps of its trials, written into its folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raypatch.config import RunOptions
from raypatch.explain.attention_distance import attention_tokens, mean_attention_distance
from raypatch.explain.maps import ATTENTION, GRAD_CAM, Maps, Said, make_maps, measure_maps, said_of, why_no_map
from raypatch.explain.saliency import half_mass
from raypatch.explain.subject import Subject, choose_subjects, level_words, open_subject, shown_images
from raypatch.predict import find_trials
from raypatch.results import SweepPaths, read_sweep
from raypatch.results.explained import DistanceRow, Pictures, SaliencyRow, write_pictures, write_rows
from raypatch.storage.own_files import move_own_files
from raypatch.tasks import reads_masks

SHOWN = 2
"""Pictures of each kind: right and wrong, confident and unsure."""


@dataclass(frozen=True)
class Explanation:
    """What was explained. folder: of the files. notes: what a reader must know of them."""

    folder: Path
    notes: tuple[str, ...]


def explain(
    folder: Path,
    *,
    dataset: str | None = None,
    levels: Sequence[str] | None = None,
    trial: str | None = None,
    images: int | None = None,
    moved: Sequence[Path] = (),
    renormalise: bool = True,
    device: str = "auto",
    tell: Callable[[str], object] = bool,
) -> Explanation:
    """Explain trials of a finished run on images of the test split, and write what is found into its folder.

    It replaces what an earlier call wrote. dataset, levels, trial: see `choose_subjects`. images: how
    many; None takes all up to MOST_IMAGES. moved: new paths of own data. renormalise: of attention
    distances, let the patches' rows sum to 1 without the class token. tell: is given a line when a
    trial is done. Raises ValueError for trials, images or data that there are not, and where a model
    has nothing to explain.
    """
    found = find_trials(folder)
    members = choose_subjects(found, dataset, levels, trial)
    for member in members:
        if reads_masks(member.dataset.task):
            raise ValueError(
                f"trial {member.result.trial_id} is a segmentation, which says itself where things are; explain"
                " trials that classify, by --dataset or --trial"
            )
    options = _options_of(folder, moved, device)
    distances: list[DistanceRow] = []
    saliency: list[SaliencyRow] = []
    pictures: dict[str, Pictures] = {}
    notes: list[str] = []
    picked: dict[str, tuple[NDArray[np.int64], list[str]]] = {}
    for member in members:
        subject = open_subject(member, level_words(found, member), options, images)
        reason = why_no_map(subject)
        if reason:
            raise ValueError(reason)
        own = _distances(subject, renormalise=renormalise)
        distances += own
        said = said_of(subject)
        maps = make_maps(subject, said.classes)
        saliency += measure_maps(subject, said, maps)
        # The same images for all trials on a dataset, as the first of them chooses.
        rows, kinds = picked.setdefault(member.config.dataset, _pick(said))
        pictures[member.result.trial_id] = _pictures(subject, said, maps, rows, kinds)
        notes += _notes(subject, maps, has_distances=bool(own))
        tell(f"{member.result.trial_id}: {subject.level}, {len(subject.images)} images, maps: {', '.join(maps)}")
    paths = SweepPaths(folder).explanation
    for trial_id, content in pictures.items():
        write_pictures(paths.pictures(trial_id), content)
    write_rows(paths.distances, DistanceRow, distances)
    # It names the trials whose pictures a report looks for: written after them, and before others go.
    write_rows(paths.saliency, SaliencyRow, saliency)
    for file in paths.folder.glob("*.npz"):
        if file.stem not in pictures:
            file.unlink()
    return Explanation(paths.folder, tuple(dict.fromkeys(notes)))


def _options_of(folder: Path, moved: Sequence[Path], device: str) -> RunOptions:
    """How the run's trials ran, as far as its record knows, on this device."""
    record = SweepPaths(folder).record
    where = RunOptions.model_validate(read_sweep(record).options if record.exists() else {})
    files = move_own_files(where.files, moved, [], list(folder.absolute().parents)[:3])
    return where.model_copy(update={"files": files, "device": device})


def _distances(subject: Subject, *, renormalise: bool) -> list[DistanceRow]:
    """A row per layer and head; none for a model without attention."""
    if attention_tokens(subject.prepared) is None:
        return []
    found = mean_attention_distance(subject.prepared, subject.images, renormalise=renormalise)
    rows = []
    for (layer, head), distance in np.ndenumerate(found):
        rows.append(
            DistanceRow(
                dataset=subject.member.config.dataset,
                trial_id=subject.member.result.trial_id,
                level=subject.level,
                layer=layer + 1,
                head=head + 1,
                distance=distance,
                image_size=subject.prepared.image_size,
                images=len(subject.images),
            )
        )
    return rows


def _pick(said: Said) -> tuple[NDArray[np.int64], list[str]]:
    """Rows of images to show and why: of right and wrong ones the surest and the least sure."""
    rows: list[int] = []
    kinds = []
    by_doubt = np.argsort(-said.probability, kind="stable")
    for word, wanted in (("right", said.right), ("wrong", ~said.right)):
        own = [int(row) for row in by_doubt if wanted[row]]
        # Where there are few, none is shown twice.
        confident = own[: min(SHOWN, (len(own) + 1) // 2)]
        unsure = own[len(confident) :][-SHOWN:]
        rows += confident + unsure
        kinds += [f"{word}, confident"] * len(confident) + [f"{word}, unsure"] * len(unsure)
    return np.array(rows, np.int64), kinds


def _pictures(subject: Subject, said: Said, maps: Maps, rows: NDArray[np.int64], kinds: Sequence[str]) -> Pictures:
    config = subject.member.config
    kept = {name: values[rows] for name, values in maps.items() if name.startswith((ATTENTION, GRAD_CAM))}
    return Pictures(
        index=subject.predictions.index[rows],
        images=shown_images(subject.images[rows], config.image_size, config.resize).numpy(),
        label=np.array(said.label)[rows],
        predicted=np.array(said.predicted)[rows],
        probability=said.probability[rows],
        kind=np.array(kinds),
        maps=kept,
        halves={name: half_mass(values) for name, values in kept.items()},
        masks=None if subject.masks is None else subject.masks[rows],
    )


def _notes(subject: Subject, maps: Maps, *, has_distances: bool) -> list[str]:
    model, label = subject.member.config.model, subject.member.config.dataset_label
    notes = []
    if not has_distances:
        notes.append(f"{model} has no attention among its patches: no attention distance, no attention map")
    if GRAD_CAM not in maps:
        notes.append(f"{model}: no Grad-CAM; pip install 'raypatch[explain]'")
    elif not maps[GRAD_CAM].any():
        notes.append(
            f"{model} at {subject.prepared.image_size} pixels: Grad-CAM is empty; its last map may have too few places"
        )
    if subject.masks is None:
        notes.append(f"{label} has no test_masks: its maps are measured by deletion and insertion")
    elif not subject.masks.reshape(len(subject.masks), -1).any(axis=1).all():
        empty = int((~subject.masks.reshape(len(subject.masks), -1).any(axis=1)).sum())
        notes.append(f"{label}: {empty} of its masks are empty, and no map is measured there")
    return notes
