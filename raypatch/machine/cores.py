"""How many processor cores this process may use, and how many of them other work takes: the one answer for all."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

BUSY_CORES = 0.25
"""Cores that other work takes from which on this machine counts as busy, however many it has: a step on all cores waits
for the slowest of its threads."""

LOOKS = 3
"""How often is looked for other work at most: what takes less than a tenth of a second counts as none."""

LOOK_SECONDS = 0.1


def available_cores() -> int:
    """Return the cores that this process may use, at least 1.

    The smallest of: the cores that it may run on (affinity), what Slurm gave the task
    ($SLURM_CPUS_PER_TASK), and the quota of its control group or of one above (docker --cpus,
    Kubernetes limits.cpu; whole cores).
    """
    limits = [_cores_by_affinity()]
    asked_of_slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if asked_of_slurm.isdecimal():
        limits.append(int(asked_of_slurm))
    quota = cpu_quota()
    if quota is not None:
        limits.append(int(quota))
    return max(1, min(limits))


def taken_cores() -> float:
    """Return how many of the available cores other work takes now, from 0 to all of them.

    It is measured, for LOOK_SECONDS up to LOOKS times: each core has a thread that computes, and what these had to wait
    is added up. The load average lags a minute behind, counts what this process itself did, and misses one busy core.
    """
    taken = float(available_cores())
    for _ in range(LOOKS):
        # What other work takes for a moment alone falsifies nothing.
        taken = min(taken, _taken_for_a_moment())
        if not is_busy(taken):
            break
    return taken


def is_busy(taken: float) -> bool:
    """Whether other work takes so much that it falsifies what is timed here."""
    return taken > BUSY_CORES


def describe_other_work(taken: float) -> str:
    """Say how many cores other work takes."""
    return f"other work runs here and takes {taken:.1f} of {available_cores()} cores"


def _taken_for_a_moment() -> float:
    cores = available_cores()
    # Python lets go of its lock while it hashes as much as this.
    block = bytes(2**24)
    start = threading.Barrier(cores)
    with ThreadPoolExecutor(cores) as pool:
        waits = [pool.submit(_share_of_waiting, start, block) for _ in range(cores)]
        return sum(wait.result() for wait in waits)


def _share_of_waiting(start: threading.Barrier, block: bytes) -> float:
    """The share of LOOK_SECONDS in which a thread that only computes got no core."""
    start.wait()
    began, computed = time.perf_counter(), time.thread_time()
    while time.perf_counter() - began < LOOK_SECONDS:
        hashlib.sha256(block)
    passed, computed = time.perf_counter() - began, time.thread_time() - computed
    return max(0.0, 1 - computed / passed)


def _cores_by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(groups: Path = CGROUPS, own_groups: Path = OWN_GROUPS) -> float | None:
    """Return the smallest quota, in cores, of this process's control
    groups and those above; None without one.

    groups: where the control groups are mounted, of version 1, 2 or both. own_groups: which of them
    are this process's, a line each (number:controllers:path), as the kernel lists them.
    """
    try:
        lines = own_groups.read_text("utf-8").splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            # Version 2, alone or beside version 1.
            roots = [groups, groups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [groups / "cpu", groups / controllers]
        else:
            continue
        for root in roots:
            quotas += _quotas_upwards(root, path)
    return min(quotas, default=None)


def _quotas_upwards(root: Path, path: str) -> list[float]:
    """The quotas of the group at `path` and of all above it.

    Inside a container a path may not exist: its root does.
    """
    group = root / path.strip("/")
    found = []
    for folder in (group, *group.parents):
        quota = _read_quota(folder)
        if quota is not None:
            found.append(quota)
        if folder == root:
            break
    return found


def _read_quota(group: Path) -> float | None:
    """Cores that one group may use: `cpu.max` of version 2, `cpu.cfs_*` of version 1;
    None for no limit.
    """
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text("ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text("ascii").strip()
            period = (group / "cpu.cfs_period_us").read_text("ascii").strip()
        # "max" is no number: no limit.
        cores = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    # Version 1 writes -1 for no limit.
    return cores if cores > 0 else None
