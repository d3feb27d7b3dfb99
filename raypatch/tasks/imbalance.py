"""Which tasks take class weights, balanced sampling, focal loss and label smoothing."""

from raypatch.tasks.classification import ManyLabels, OneClass
from raypatch.tasks.protocols import Task
from raypatch.trial_fields.loss import LossFields


def has_one_class(task: Task) -> bool:
    """Whether each image has one class of several, by torch's cross-entropy."""
    # A task of one's own may start from OneClass and have another loss.
    return isinstance(task, OneClass) and type(task).loss is OneClass.loss


def check_loss_fields(config: LossFields, task: Task) -> None:
    """Raise ValueError for a field of the training loss that this task cannot have."""
    if config.mask_loss != "bce" and task.reads != "masks":
        raise ValueError(f"mask_loss={config.mask_loss} is for a segmentation, not for {task.name}; leave it out")
    if has_one_class(task):
        return
    asked = {
        "class_weights=balanced": config.class_weights == "balanced",
        "sampling=balanced": config.sampling == "balanced",
        f"label_smoothing={config.label_smoothing:g}": config.label_smoothing > 0,
    }
    for words, is_asked in asked.items():
        if is_asked:
            raise ValueError(
                f"{words} is for classes of which each image has one, not for the task {task.name}; leave it out"
            )
    has_labels = isinstance(task, ManyLabels) and type(task).loss is ManyLabels.loss
    if config.focal_gamma > 0 and not has_labels:
        raise ValueError(f"focal_gamma={config.focal_gamma:g} replaces a cross-entropy, which {task.name} has not")
