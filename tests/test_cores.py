"""How many cores may be used, by what a machine and a container say of them."""

from __future__ import annotations

import os
import sys

import pytest

from taxi_duration import cores

V2, V1 = "0::{}\n", "12:memory:/else\n4:cpu,cpuacct:{}\n1:name=systemd:/else\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight cores, with the files that are given."""

    def make(groups: str | None, files: dict[str, str]) -> int:
        for name, content in files.items():
            path = tmp_path / "mounted" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        if groups is not None:
            (tmp_path / "own").write_text(groups)
        return cores.usable_cores.__wrapped__()

    monkeypatch.setattr(cores, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cores, "MOUNTED", tmp_path / "mounted")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return make


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (None, {}, 8),  # not Linux
        (V2.format("/"), {}, 8),  # the group of all
        (V2.format("/"), {"cpu.max": "max 100000\n"}, 8),
        (V2.format("/"), {"cpu.max": "300000 100000\n"}, 3),
        (V2.format("/"), {"cpu.max": "50000 100000\n"}, 1),
        (V2.format("/"), {"cpu.max": "250000 100000\n"}, 3),  # a part of one is one
        (V2.format("/"), {"cpu.max": "6400000 100000\n"}, 8),
        (V2.format("/"), {"cpu.max": "odd\n"}, 8),
        (V2.format("/a/b"), {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        (V2.format("/a/b"), {"a/b/cpu.max": "400000 100000", "other/cpu.max": "1 100000"}, 4),
        (V2.format("/docker/1a"), {"cpu.max": "400000 100000"}, 4),  # mounted: its own
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (V1.format("/"), {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        (V1.format("/d/1a"), {"cpu/cpu.cfs_quota_us": "5", "cpu/cpu.cfs_period_us": "100000"}, 1),
        (V1.format("/"), {"memory/cpu.cfs_quota_us": "1", "memory/cpu.cfs_period_us": "9"}, 8),
    ],
)  # fmt: skip
def test_a_container_has_the_cores_that_its_groups_have_time_for(machine, groups, files, expected):
    assert machine(groups, files) == expected


def test_a_process_has_the_cores_that_it_is_bound_to(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5}, raising=False)
    assert machine(V2.format("/"), {"cpu.max": "300000 100000\n"}) == 2
    assert machine(V2.format("/"), {"cpu.max": "100000 100000\n"}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes are bound to cores on Linux only")
def test_this_process_may_use_one_at_least_and_no_more_than_there_are():
    assert 1 <= cores.usable_cores() <= (os.cpu_count() or 1)
