"""What is timed of a pretraining: a step with all its views, and what features of an image take."""

import torch
from torch import Tensor

from raypatch.config import RunOptions, TrialConfig
from raypatch.data.batches.resize import held_size
from raypatch.data.source import describe
from raypatch.methods import find_method
from raypatch.models.flops import trial_facts
from raypatch.models.memory import fit_memory
from raypatch.models.prepared import prepare_model
from raypatch.objectives import find_objective
from raypatch.objectives.schedules import Moment
from raypatch.objectives.step import PretrainingStep
from raypatch.sweep.cost.seconds.timing import TIMED_STEPS, Timing, clock_of, least_seconds, timed_images
from raypatch.training.optim import make_optimizer
from raypatch.trial_fields.length import training_length
from raypatch.trial_fields.objective import views_as_images


def time_pretraining(config: TrialConfig, options: RunOptions) -> Timing:
    """Time a pretraining step and the features of an image, on noise shaped like the trial's images."""
    info = describe(config.source, data_dir=options.data_dir, files=options.files)
    views = views_as_images(config, config.image_size, config.patch_size)
    batch_size = timed_images(config.batch_size, views * trial_facts(config, options)[1].gflops, options)
    # Pretrained weights would be downloaded, and take no other time than random ones.
    made = config.model_copy(update={"weights": "random", "batch_size": batch_size})
    prepared = prepare_model(made, info, options)
    find_method(config.method).prepare(prepared)
    micro_batch = fit_memory(prepared, made, options.micro_batch)
    learner = find_objective(config.objective).make_learner(prepared, made, info)
    step = PretrainingStep(learner, make_optimizer(learner.student, made), prepared, made, micro_batch=micro_batch)
    held = (held_size(info.size, config.image_size, config.resize),) * info.dimensions
    noise = torch.randint(0, 256, (batch_size, info.channels, *held), dtype=torch.uint8)
    images = noise.to(prepared.device)
    moment = Moment(0, 0, training_length(made, info.training_images(config.train_fraction)))
    drawn = learner.draw(batch_size, torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def features() -> Tensor:
        found = learner.features(prepared.inputs(images))
        return found.cpu()

    # A GPU works on after the call has returned: .item() and .cpu() wait for it.
    clock = clock_of(prepared.device)
    seconds = least_seconds(lambda: step(images, drawn, moment).item(), warm_up=1, repeats=TIMED_STEPS, clock=clock)
    evaluation = least_seconds(features, warm_up=1, repeats=3, clock=clock) / batch_size
    return Timing(step=seconds * config.batch_size / batch_size, evaluation=evaluation)
