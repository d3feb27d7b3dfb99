from pathlib import Path

import pytest

from raypatch.machine import cores
from raypatch.machine.cores import available_cores, cpu_quota


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V1, V2 = "4:memory:/\n2:cpu,cpuacct:/job/step\n0::/\n", "0::/job/step\n"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        (V2, {"job/step/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"job/step/cpu.max": "max 100000\n"}, None),
        (V2, {"job/cpu.max": "50000 100000\n", "job/step/cpu.max": "max 100000\n"}, 0.5),
        (V2, {"cpu.max": "200000 100000\n"}, 2.0),  # in a container the path leads nowhere, its own group is the root
        (V1, {"cpu/job/step/cpu.cfs_quota_us": "50000", "cpu/job/step/cpu.cfs_period_us": "100000"}, 0.5),
        (V1, {"cpu,cpuacct/job/cpu.cfs_quota_us": "300000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 3.0),
        (V1, {"cpu/job/step/cpu.cfs_quota_us": "-1", "cpu/job/step/cpu.cfs_period_us": "100000"}, None),
        ("7:memory:/x\n", {"memory/x/cpu.max": "1 1"}, None),
        (V2, {"job/step/cpu.max": "nonsense\n"}, None),
    ],
)
def test_the_smallest_quota_of_a_group_and_those_above_counts(tmp_path, own, files, quota):
    lay_out(tmp_path, {"own": own, **{f"groups/{name}": content for name, content in files.items()}})
    assert cpu_quota(tmp_path / "groups", tmp_path / "own") == quota


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path, tmp_path / "absent") is None


@pytest.mark.parametrize(("quota", "slurm", "expected"), [(0.5, "", 1), (1.9, "", 1), (None, "1", 1), (2.0, "many", 2)])
def test_quota_and_slurm_make_it_fewer_but_never_none(monkeypatch, quota, slurm, expected):
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)
    monkeypatch.setattr(cores, "_cores_by_affinity", lambda: 4)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert available_cores() == expected


def test_what_threads_that_compute_wait_for_is_what_other_work_takes(monkeypatch):
    shares = iter([0.0, 0.4])
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.setattr(cores, "_share_of_waiting", lambda start, block: (start.wait(), next(shares))[1])
    assert cores._taken_for_a_moment() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("looks", "taken", "busy"),
    [([1.0, 0.1], 0.1, False), ([0.0], 0.0, False), ([0.6, 0.5, 0.7], 0.5, True)],
)
def test_only_other_work_that_lasts_counts(monkeypatch, looks, taken, busy):
    left = iter(looks)
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.setattr(cores, "_taken_for_a_moment", lambda: next(left))
    assert cores.taken_cores() == taken
    assert cores.is_busy(taken) == busy
    assert next(left, None) is None, "as many looks as it takes and no more"


def test_looking_for_other_work_is_real(monkeypatch):
    monkeypatch.setattr(cores, "LOOK_SECONDS", 0.0)
    assert 0 <= cores.taken_cores() <= available_cores()
