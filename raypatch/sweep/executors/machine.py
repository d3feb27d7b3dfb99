"""This machine as the place of a sweep: what is checked and placed for trials that run here."""

from collections.abc import Sequence

import torch

from raypatch.config import TrialConfig
from raypatch.machine.cores import available_cores
from raypatch.machine.runtime import resolve_device, total_memory
from raypatch.sweep.cost.placement import Placement, Room, check_cores, check_gpus, place_trials
from raypatch.sweep.executors.preflight import check_before_start, check_folder
from raypatch.sweep.session import Session


def check_machine(session: Session, trials: Sequence[TrialConfig]) -> None:
    """See that this machine is fit for the trials, and make the run folder. Raises ValueError."""
    execution, options = session.execution, session.options
    check_before_start(trials, options, executor=execution.executor, say=session.say)
    check_cores(execution.cpus_per_trial, available_cores(), "this machine")
    if resolve_device(options.device).type == "cuda":
        check_gpus(execution.gpus, torch.cuda.device_count(), "this machine")
    check_folder(session.paths.folder)


def room_here(session: Session) -> Room:
    """What this machine has for the session's trials."""
    device = resolve_device(session.options.device)
    execution = session.execution
    return Room(
        cores=available_cores(),
        gpus=execution.gpus,
        card_bytes=total_memory(device) if device.type == "cuda" else None,
        cpus=execution.cpus_per_trial,
        gpu_share=execution.gpu_share,
    )


def place_here(session: Session, trials: Sequence[TrialConfig]) -> Placement:
    """Place trials on this machine's GPUs or cores."""
    return place_trials(trials, session.options, room_here(session), session.say)
