"""Seconds of a trial on stored features: the pass of an image, the step of a head, alone and among others."""

import copy
import functools

import torch

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.resize import held_size
from raypatch.features.extract import extract_features
from raypatch.features.head import PreparedHead, place_head
from raypatch.machine.runtime import on_one_thread
from raypatch.methods import feature_method, group_key
from raypatch.models.heads import feature_kind
from raypatch.models.neighbours import NearestNeighbours
from raypatch.models.prepared import evaluation_batch, prepare_model
from raypatch.sweep.cost.timing import TIMED_STEPS, Timing, median_seconds, timed_images
from raypatch.tasks import Task, find_task
from raypatch.tasks.seen import describe_seen
from raypatch.training.evaluate import score_logits
from raypatch.training.optim import make_optimizer
from raypatch.training.stacked import Stack

TOGETHER = 16
"""Heads that train together while they are timed."""

MOST_SCORED = 2048
"""Validation images, and training images that neighbours are among, at most; beyond, seconds grow with their number."""


def time_head(config: TrialConfig, options: RunOptions) -> Timing:
    """Time a trial on stored features, on noise and made features."""
    info = describe_seen(config, options)
    method = feature_method(config)
    assert method is not None, "asked for by time_trial"
    # As there: pretrained weights would be downloaded, and take no other time.
    made = config.model_copy(update={"weights": "random"})
    prepared = prepare_model(made, info, options)
    batch = min(64, evaluation_batch(prepared.facts.tokens, config.image_size**info.dimensions))
    batch = timed_images(batch, prepared.facts.gflops, options)
    held = (held_size(info.size, config.image_size, config.resize),) * info.dimensions
    images = torch.randint(0, 256, (batch, info.channels, *held), dtype=torch.uint8).to(prepared.device)
    found = [torch.zeros(())]

    def extract() -> None:
        found[0] = torch.cat(list(extract_features(prepared, images, feature_kind(config))))

    evaluation = median_seconds(extract, warm_up=1, repeats=3) / batch
    shape = found[0].shape[1:]
    task = find_task(config.task or info.task)
    outputs = task.outputs(info.classes)
    head = place_head(method.build_head(made, dimensions=info.dimensions, outputs=outputs), prepared)
    train, val = min(info.counts[0], MOST_SCORED), min(info.counts[1], MOST_SCORED)
    larger = info.counts[1] / val
    if isinstance(head.model, NearestNeighbours):
        head.model.remember(torch.randn(train, *shape), task.blank_labels(train, outputs), outputs)
        head.model.to(prepared.device)
        larger *= info.counts[0] / train
    features = torch.randn(val, *shape).to(prepared.device)
    # Some of each class, or scores would be undefined.
    labels = task.blank_labels(val, outputs)
    if labels.ndim == 1:
        labels = torch.arange(val) % outputs
    else:
        labels[::2] = 1
    score = functools.partial(_score, head, features, labels, task)
    scoring = larger * median_seconds(score, warm_up=1, repeats=3)
    if not list(head.model.parameters()):
        return Timing(step=0.0, evaluation=evaluation, scoring=scoring)
    alone = _step_seconds(config, head.model, 1, tuple(shape), outputs)
    together = None if group_key(config) is None else _step_seconds(config, head.model, TOGETHER, tuple(shape), outputs)
    return Timing(step=alone, evaluation=evaluation, together=together and together / TOGETHER, scoring=scoring)


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
    with on_one_thread():
        return median_seconds(lambda: stack.step(features, labels).tolist(), warm_up=2, repeats=TIMED_STEPS)
