"""Seconds of a trial's training step and of its evaluation, timed on made images."""

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.augment import draw_parameters
from raypatch.data.batches.resize import held_size
from raypatch.methods import feature_method, find_method
from raypatch.models.attention import choose_attention
from raypatch.models.flops import trial_facts
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import evaluation_batch, prepare_model
from raypatch.sweep.cost.seconds.head_timing import time_head
from raypatch.sweep.cost.seconds.pretraining_timing import time_pretraining
from raypatch.sweep.cost.seconds.timing import TIMED_STEPS, Timing, clock_of, least_seconds, timed_images
from raypatch.tasks import find_task
from raypatch.tasks.seen import describe_seen
from raypatch.training.optim import make_optimizer
from raypatch.training.steps.step import WARM_UP_STEPS, TrainingStep


def time_trial(config: TrialConfig, options: RunOptions, *, passing: float | None = None) -> Timing:
    """Time a training step and the evaluation of an image, on noise shaped like the trial's images.

    passing: seconds of an image through the frozen backbone of a trial on stored features, None to
    time them too.
    """
    if feature_method(config) is not None:
        return time_head(config, options, passing=passing)
    if config.makes_weights:
        return time_pretraining(config, options)
    info = describe_seen(config, options)
    batch_size = images_of_step(config, options)
    # Pretrained weights would be downloaded, and take no other time than random ones.
    made = config.model_copy(update={"weights": "random", "batch_size": batch_size})
    prepared = prepare_model(made, info, options)
    method = find_method(config.method)
    method.prepare(prepared)
    evaluated = evaluation_batch(prepared.facts.tokens, config.image_size**info.dimensions)
    # Of a batch that is cut short the evaluation is, too.
    count = max(config.batch_size, min(64, evaluated)) if batch_size == config.batch_size else batch_size
    held = (held_size(info.size, config.image_size, config.resize),) * info.dimensions
    noise = torch.randint(0, 256, (count, info.channels, *held), dtype=torch.uint8)
    images = noise.to(prepared.device)
    # A GPU works on after the call has returned: .cpu() here and .item() below wait for it.
    clock = clock_of(prepared.device)
    evaluation = least_seconds(lambda: prepared.logits(images).cpu(), warm_up=1, repeats=3, clock=clock) / count

    task = find_task(config.task or info.task)
    labels = task.blank_labels(batch_size, task.outputs(info.classes)).to(prepared.device)
    parameters = None
    if config.augmentation != "none":
        shape = prepared.augmented_shape(images)
        elastic = config.augmentation == "elastic"
        drawn = draw_parameters(batch_size, shape, torch.Generator(), mirror_safe=True, elastic=elastic)
        parameters = drawn.to(prepared.device)
    choose_attention(prepared, batch_size)
    step = TrainingStep(
        prepared,
        make_optimizer(prepared.model, made, prepared.head),
        # Weights and focal loss take no time to speak of.
        task.loss,
        made,
        micro_batch=fit_memory(prepared, made, options.micro_batch),
    )
    method.set_training_mode(prepared)
    batch = images[:batch_size], labels, parameters
    # The first steps on a GPU are slower: a CUDA graph is recorded then.
    warm_up = WARM_UP_STEPS + 2 if prepared.device.type == "cuda" else 1
    seconds = least_seconds(lambda: step(*batch).item(), warm_up=warm_up, repeats=TIMED_STEPS, clock=clock)
    return Timing(step=seconds * config.batch_size / batch_size, evaluation=evaluation)


def images_of_step(config: TrialConfig, options: RunOptions) -> int:
    """How many images of a trial's batch its step is timed on."""
    _, facts = trial_facts(config, options)
    return timed_images(config.batch_size, facts.gflops, options)
