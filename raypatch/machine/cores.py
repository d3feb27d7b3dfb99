"""How many processor cores this process may use: the one answer for every part that asks."""

import os
from pathlib import Path

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


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
