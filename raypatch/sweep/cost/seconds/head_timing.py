"""Seconds of a trial on stored features: the pass of an image, the step of a head, alone and among others."""

import copy
import functools

import torch
from torch import nn

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.resize import held_size
from raypatch.features.extract import freeze
from raypatch.features.head import PreparedHead, place_head
from raypatch.machine.runtime import on_threads, resolve_device, resolve_precision
from raypatch.methods import feature_method, group_key
from raypatch.models.build import BuiltModel
from raypatch.models.families import find_family
from raypatch.models.flops import count_outputs, trial_facts
from raypatch.models.heads import BODY_FIELDS, feature_kind, feature_shape
from raypatch.models.neighbours import NearestNeighbours
from raypatch.models.prepared import evaluation_batch, place_model, prepare_model
from raypatch.sweep.cost.seconds.timing import TIMED_STEPS, Timing, clock_of, least_seconds, timed_images
from raypatch.tasks import Task, find_task
from raypatch.tasks.seen import describe_seen
from raypatch.training.evaluate import score_logits
from raypatch.training.optim import make_optimizer
from raypatch.training.stacked import Stack

TOGETHER = 16
"""Heads that train together while they are timed."""

MOST_SCORED = 2048
"""Validation images, and training images that neighbours are among, at most; beyond, seconds grow with their number."""


def time_head(config: TrialConfig, options: RunOptions, *, passing: float | None = None) -> Timing:
    """Time a trial on stored features, on noise and made features.

    passing: seconds of an image through its backbone, None to time them too.
    """
    if passing is None:
        passing = _time_pass(config, options)
    info = describe_seen(config, options)
    task = find_task(config.task or info.task)
    outputs = task.outputs(info.classes)
    shape = feature_shape(config, find_family(config.model), dimensions=info.dimensions, outputs=outputs)
    head = _make_head(config, options)
    train, val = min(info.counts[0], MOST_SCORED), min(info.counts[1], MOST_SCORED)
    larger = info.counts[1] / val
    if isinstance(head.model, NearestNeighbours):
        head.model.remember(torch.randn(train, *shape), task.blank_labels(train, outputs), outputs)
        head.model.to(head.device)
        larger *= info.counts[0] / train
    features = torch.randn(val, *shape).to(head.device)
    # Some of each class, or scores would be undefined.
    labels = task.blank_labels(val, outputs)
    if labels.ndim == 1:
        labels = torch.arange(val) % outputs
    else:
        labels[::2] = 1
    score = functools.partial(_score, head, features, labels, task)
    scoring = larger * least_seconds(score, warm_up=1, repeats=3, clock=clock_of(head.device))
    if not list(head.model.parameters()):
        return Timing(step=0.0, evaluation=passing, scoring=scoring)
    alone = _step_seconds(config, head.model, 1, shape, outputs)
    together = None if group_key(config) is None else _step_seconds(config, head.model, TOGETHER, shape, outputs)
    return Timing(step=alone, evaluation=passing, together=together and together / TOGETHER, scoring=scoring)


def pass_kind(config: TrialConfig, options: RunOptions) -> tuple[object, ...]:
    """What an image's pass through a frozen backbone depends on: trials that agree in it share a timing."""
    info = describe_seen(config, options)
    held = held_size(info.size, config.image_size, config.resize)
    body = tuple(getattr(config, name) for name in BODY_FIELDS)
    return (*body, feature_kind(config), config.precision, config.resize, held, info.dimensions)


def images_of_pass(config: TrialConfig, options: RunOptions) -> int:
    """How many images the pass through a frozen backbone is timed on."""
    info, facts = trial_facts(config, options)
    batch = min(64, evaluation_batch(facts.tokens, config.image_size**info.dimensions))
    return timed_images(batch, facts.gflops, options)


def _time_pass(config: TrialConfig, options: RunOptions) -> float:
    """Seconds of an image through the frozen backbone of a trial."""
    info = describe_seen(config, options)
    # Pretrained weights would be downloaded, and take no other time.
    prepared = prepare_model(config.model_copy(update={"weights": "random"}), info, options)
    held = (held_size(info.size, config.image_size, config.resize),) * info.dimensions
    count = images_of_pass(config, options)
    images = torch.randint(0, 256, (count, info.channels, *held), dtype=torch.uint8).to(prepared.device)
    frozen = freeze(prepared, images, feature_kind(config))

    def extract() -> None:
        for batch in images.split(frozen.batch_size(images)):
            frozen.features(batch).cpu()

    return least_seconds(extract, warm_up=1, repeats=3, clock=clock_of(prepared.device)) / count


def _make_head(config: TrialConfig, options: RunOptions) -> PreparedHead:
    """A trial's head where its features will be, without the backbone."""
    info, facts = trial_facts(config, options)
    device = resolve_device(options.device)
    method = feature_method(config)
    assert method is not None, "asked for by time_trial"
    # The head of a pretrained model is drawn without making the backbone; neither is downloaded.
    pretrained = config.model_copy(update={"weights": "timm"})
    head = method.build_head(pretrained, dimensions=info.dimensions, outputs=count_outputs(config, info))
    no_backbone = BuiltModel(nn.Identity(), (0.0,) * 3, (1.0,) * 3)
    placed = place_model(config, no_backbone, facts, device, resolve_precision(config.precision, device))
    return place_head(head, placed)


def _score(head: PreparedHead, features: torch.Tensor, labels: torch.Tensor, task: Task) -> None:
    score_logits(head.logits(features), labels, task, final=False)


def _step_seconds(config: TrialConfig, head: torch.nn.Module, size: int, shape: tuple[int, ...], outputs: int) -> float:
    """Seconds of a step of `size` heads that train together."""
    device = next(head.parameters()).device
    task = find_task("multiclass")
    heads = [copy.deepcopy(head).requires_grad_(True) for _ in range(size)]
    optimizers = [make_optimizer(each, config, each) for each in heads]
    stack = Stack(heads, optimizers, config, task.loss)
    features = torch.randn(size, config.batch_size, *shape, device=device)
    labels = torch.zeros(size, config.batch_size, dtype=torch.int64, device=device)
    # As small heads train, see `training.stacked`.
    with on_threads(1):
        clock = clock_of(device)
        return least_seconds(lambda: stack.step(features, labels).tolist(), warm_up=2, repeats=TIMED_STEPS, clock=clock)
