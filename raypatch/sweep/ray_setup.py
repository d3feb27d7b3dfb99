"""Ray's settings, made before it is imported, and a Ray on this machine for the time of a sweep."""

import contextlib
import logging
import os
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
STARTS = 3
_umask = os.umask(0o077)
try:
    import ray
finally:
    os.umask(_umask)


@contextlib.contextmanager
def local_ray(*, cpus: int, gpus: int, dashboard: bool = False) -> Iterator[Path]:
    """Start Ray on this machine with so many CPUs and GPUs, silent; at the end, shut it down.

    dashboard: serve Ray's, on loopback at port 8265 or the next that is free, and say how to open it. Gives Ray's
    session folder, which goes with it: room for Ray Tune's own bookkeeping, which nothing of ours reads.
    """
    umask = os.umask(0o077)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = _start_patiently(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=200 << 20,
            )
    except ray.exceptions.AuthenticationError as error:
        raise ValueError(f"Ray finds no token: {error}") from error
    finally:
        os.umask(umask)
        for number, handler in handlers.items():  # ray.init puts its own SIGTERM handler, which exits at once
            signal.signal(number, handler)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's errors are in its train.log
    if dashboard:
        print(how_to_open(str(context.dashboard_url)), flush=True)
    session = Path(context.address_info["session_dir"])
    try:
        yield session
    finally:
        ray.shutdown()
        shutil.rmtree(session, ignore_errors=True)


def _start_patiently(**settings: Any) -> Any:
    """Start Ray, which gives up after 30 s however busy the machine is, as often as STARTS says."""
    for _ in range(STARTS):
        try:
            return ray.init(**settings)
        except Exception as error:
            if "timed out" not in str(error).lower():  # Ray raises a plain Exception
                raise
            ray.shutdown()
    raise ValueError(
        f"Ray did not start within {STARTS} times its 30 s: this machine is busy."
        " Try again, or run with --executor local"
    )


def how_to_open(address: str) -> str:
    """One line: where Ray's dashboard is, and where its user finds the token that it asks for."""
    place = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    if "RAY_AUTH_TOKEN" in os.environ:
        place = "$RAY_AUTH_TOKEN"
    return f"Ray's dashboard: http://{address} asks for the token in {place}; `ray get-auth-token` prints it"
