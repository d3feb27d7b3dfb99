"""Ray's settings, made before it is imported, and a Ray on this machine for the time of a sweep."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

# A private token file, silence, list order, our own signal handling.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_MAX_PENDING_TRIALS_PG="1",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)
_umask = os.umask(0o077)
try:
    import ray
finally:
    os.umask(_umask)


@contextlib.contextmanager
def local_ray(*, cpus: int, gpus: int) -> Iterator[None]:
    """Start Ray on this machine with so many CPUs and GPUs, silent and on loopback; shut it down at the end."""
    umask = os.umask(0o077)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=200 << 20,
            )
    finally:
        os.umask(umask)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
