"""Seconds of a whole trial, from those of its steps; passes that make features count once."""

from pathlib import Path

from raypatch.config import RunOptions, TrialConfig
from raypatch.features.identity import feature_key
from raypatch.machine.runtime import resolve_device, resolve_precision
from raypatch.methods import feature_method, find_method
from raypatch.models.flops import trial_facts
from raypatch.sweep.cost.seconds.calibration import step_kind
from raypatch.sweep.cost.seconds.calibration_file import Calibration, known_calibration
from raypatch.sweep.cost.seconds.head_timing import TOGETHER
from raypatch.sweep.cost.seconds.timing import Timing
from raypatch.training.checkpoints.writer import CHECKPOINT_SECONDS
from raypatch.trial_fields.length import training_length


class PassCounter:
    """Says of trials, one after another, which of them needs a pass through its backbone that none before it made.

    store: the folder of features that are there already, None for none.
    """

    def __init__(self, options: RunOptions, store: Path | None) -> None:
        self._device = resolve_device(options.device)
        self._store = store
        self._made: set[str] = set()

    def is_needed(self, config: TrialConfig) -> bool:
        """Whether this trial's features are not there and nobody before it makes them."""
        if feature_method(config) is None:
            return False
        key = feature_key(config, resolve_precision(config.precision, self._device))
        if key in self._made:
            return False
        self._made.add(key)
        # The last split that is passed is test.
        return self._store is None or not (self._store / key / "test.npy").exists()


def known_seconds(config: TrialConfig, options: RunOptions) -> float | None:
    """Return a trial's estimated seconds by an earlier calibration on this device, or None.

    Of a trial on stored features without the pass that makes them: see `known_pass_seconds`.
    """
    calibration = known_calibration(options)
    if calibration is None or step_kind(config, options) not in calibration.timings:
        return None
    return trial_seconds(config, options, calibration)


def known_pass_seconds(config: TrialConfig, options: RunOptions) -> float:
    """Return the estimated seconds of the pass that makes a trial's features; 0 without one, or where it is unknown."""
    calibration = known_calibration(options)
    if feature_method(config) is None or calibration is None or step_kind(config, options) not in calibration.timings:
        return 0.0
    return pass_seconds(config, options, calibration)


def pass_seconds(config: TrialConfig, options: RunOptions, calibration: Calibration) -> float:
    """Return the seconds of one pass of all images through the frozen backbone of a trial on stored features."""
    info, _ = trial_facts(config, options)
    return sum(info.counts) * calibration.timings[step_kind(config, options)].evaluation


def trial_seconds(config: TrialConfig, options: RunOptions, calibration: Calibration, together: int = 1) -> float:
    """A trial's seconds, of which `together` train together; of one on stored features its head's alone."""
    info, facts = trial_facts(config, options)
    timing = calibration.timings[step_kind(config, options)]
    train, val, test = info.counts
    length = training_length(config, info.training_images(config.train_fraction))
    if feature_method(config) is not None:
        evaluations = len(length.evaluations()) if timing.step else 0
        # At the end, val and test are predicted once more.
        scoring = timing.scoring * (evaluations + 1 + test / val)
        return length.steps * _head_step(timing, together) + scoring
    seen, predicted = val, val + test
    if config.makes_weights:
        # Nearest neighbours need the features of train too, and nothing is predicted at the end.
        seen, predicted = train + val, 0
    evaluations = len(length.evaluations())
    step = timing.step if together == 1 or timing.stacked is None else timing.stacked
    training = length.steps * step + evaluations * seen * timing.evaluation
    # A checkpoint has weights in float32 and their optimizer's moments; the first and the last evaluation have one.
    checkpoints = min(evaluations, 2 + training / CHECKPOINT_SECONDS)
    if config.makes_weights:
        checkpoints = evaluations
    copies = find_method(config.method).weight_copies
    writing = checkpoints * copies * 4 * facts.parameters / calibration.disk
    # After the last epoch the best weights predict both splits.
    return training + writing + predicted * timing.evaluation


def _head_step(timing: Timing, together: int) -> float:
    """Seconds of a step of one of so many heads: a part that all share, and one of each."""
    if timing.together is None:
        return timing.step
    each = max(0.0, (TOGETHER * timing.together - timing.step) / (TOGETHER - 1))
    shared = max(0.0, timing.step - each)
    return shared / together + each
