"""What a trial sees of its dataset: labels, or masks."""

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.catalog import DatasetInfo
from raypatch.data.source import describe
from raypatch.tasks.registry import reads_masks


def describe_seen(config: TrialConfig, options: RunOptions) -> DatasetInfo:
    """Return the facts of a trial's dataset; for a task on masks its classes are those of the masks.

    Raises ValueError as `describe`, and for masks alone where the trial names no task.
    """
    masks = reads_masks(config.task)
    info = describe(config.source, masks=masks, data_dir=options.data_dir, files=options.files)
    check_seen(config, info)
    return info


def check_seen(config: TrialConfig, info: DatasetInfo) -> None:
    """Raise ValueError where a dataset has masks alone and the trial does not ask for them."""
    if info.task == "segmentation" and not reads_masks(config.task):
        raise ValueError(f"{config.dataset_label} has masks and no labels: say task=segmentation, not {config.task}")
