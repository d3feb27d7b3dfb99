"""Ray's settings, made before it is imported, and a Ray on this machine for the time of a sweep."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from raypatch.sweep.services.ray_home import as_workers_need_it, ray_place
from raypatch.sweep.stop import shielding_children

# A private token file, silence, our own signal handling.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.update(
    RAY_AIR_NEW_OUTPUT="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_SIGINT_HANDLER="1",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
)
_umask = os.umask(0o077)
try:
    import ray
finally:
    os.umask(_umask)

STARTS = 3
"""How often Ray may try to start here: each time it gives up after 30 s."""

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to accept a connection."""


@contextlib.contextmanager
def local_ray(*, cpus: int, gpus: int, dashboard: bool = False) -> Iterator[Path]:
    """Start Ray on this machine with so many CPUs and GPUs, silent; at the end, shut it down.

    dashboard: serve Ray's, on loopback at port 8265 or the next that is free, and say how to open it. Gives Ray's
    session folder, which goes with it: room for Ray Tune's own bookkeeping, which nothing of ours reads.
    """
    with ray_place() as (where, empty):
        try:
            with _discreetly(), as_workers_need_it(empty), shielding_children():
                context = _start_patiently(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    include_dashboard=dashboard,
                    dashboard_host="127.0.0.1",
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=200 << 20,
                    **where,
                )
        except ray.exceptions.AuthenticationError as error:
            raise ValueError(f"Ray finds no token: {error}") from error
        if dashboard:
            print(how_to_open(str(context.dashboard_url)), flush=True)
        session = Path(context.address_info["session_dir"])
        try:
            yield session
        finally:
            _shut_down()
            shutil.rmtree(session, ignore_errors=True)


def _shut_down() -> None:
    """End Ray and all of its processes.

    They hear no SIGTERM, for which ray.shutdown would wait a second each, and by which the raylet would end its own:
    all are killed. The trials have stopped by then.
    """
    services: list[Any] = []
    node = ray._private.worker._global_node
    # None where Ray did not get as far as starting them.
    if node is not None:
        for started in node.all_processes.values():
            services += [each.process for each in started]
    beneath: list[psutil.Process] = []
    for service in services:
        with contextlib.suppress(psutil.NoSuchProcess):
            beneath += psutil.Process(service.pid).children(recursive=True)
        service.terminate = service.kill
    ray.shutdown()
    for process in beneath:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _start_patiently(**settings: Any) -> Any:
    """Start Ray, again where a busy machine was too slow for it. Raises ValueError after STARTS times."""
    for _ in range(STARTS):
        try:
            return ray.init(**settings)
        except Exception as error:
            if "timed out" not in str(error).lower():  # Ray raises a plain Exception
                raise
            _shut_down()
    raise ValueError(
        f"Ray did not start within {STARTS} times its 30 s: this machine is busy."
        " Try again, or run with --executor local"
    )


@contextlib.contextmanager
def joined_ray(address: str) -> Iterator[None]:
    """Connect to the Ray cluster whose head is at `address` (HOST:PORT, or auto), silent; at the end only disconnect.

    Raises ValueError when no cluster is there, or it does not take this machine or its token.
    """
    head = _find_head(address)
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryFile() as log:
        try:
            with _discreetly(), _stderr_to(log.fileno()), as_workers_need_it(Path(empty)):
                ray.init(address=head, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            ray.shutdown()
            log.seek(0)
            said = log.read().decode(errors="replace")
            raise ValueError(f"cannot join the cluster at {head}: {_explain(error, said)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _find_head(address: str) -> str:
    """HOST:PORT of a head that answers. Ray itself would try an address where nothing answers for a quarter hour."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        found = canonicalize_bootstrap_address("auto")
        if found is None:
            raise ValueError("--address auto: Ray knows of no cluster here; give the head's HOST:PORT")
        address = found
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in address:
        raise ValueError(f"--address {address!r} must be auto or the HOST:PORT of the head, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"no Ray cluster answers at {address} ({error}); see that its head runs (`ray start --head`) and that"
            " no firewall stands between, or give another --address"
        ) from error
    return address


def _explain(error: Exception, said: str) -> str:
    """Why Ray could not connect, and the way out. said: what its core wrote meanwhile."""
    way_out = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
    if isinstance(error, ray.exceptions.AuthenticationError):
        return f"there is no token for it here; {way_out}"
    if "InvalidAuthToken" in said:
        if os.environ["RAY_AUTH_MODE"] != "token":
            return f"it asks for a token, and RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} sends none; {way_out}"
        return f"it does not take the token in {token_place()}; {way_out}"
    if "ersion mismatch" in str(error):
        return f"{' '.join(str(error).split())}; install the same here and on all nodes"
    if isinstance(error, ConnectionError):
        return f"{error}. Perhaps it is no Ray, or asks for a token: {way_out}"
    return (
        f"{error}. The command must run on a machine of the cluster: on the head, or on one that joined it without"
        f" taking trials (`ray start --address HEAD --num-cpus 0 --num-gpus 0`)"
    )


@contextlib.contextmanager
def _discreetly() -> Iterator[None]:
    """Let Ray start or connect without warnings, with private files, and without keeping its signal handlers."""
    umask = os.umask(0o077)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.umask(umask)
        for number, handler in handlers.items():  # ray.init puts its own SIGTERM handler, which exits at once
            signal.signal(number, handler)
        for name in ("ray", "ray.tune", "ray.train"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a trial's errors are in its train.log


@contextlib.contextmanager
def _stderr_to(descriptor: int) -> Iterator[None]:
    """Send this process's standard error, that of compiled code too, elsewhere."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


def token_place() -> str:
    """Where Ray looks for its token."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return "$RAY_AUTH_TOKEN"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


def how_to_open(address: str) -> str:
    """One line: where Ray's dashboard is, and where its user finds the token that it asks for."""
    return f"Ray's dashboard: http://{address} asks for the token in {token_place()}; `ray get-auth-token` prints it"
