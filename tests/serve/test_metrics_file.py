"""Files of metrics on a disk that is full: figures are kept elsewhere, and the process lives."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from serve.core.metrics_file import FIRST_BYTES, ReservedFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has such files")


def has_blocks(path: Path) -> bool:
    """Whether the disk gave room for every byte of a file."""
    status = path.stat()
    return 512 * status.st_blocks >= status.st_size > 0


def fill(file: ReservedFile, n: int) -> None:
    for i in range(n):
        file.write_value(f"figure {i} {'x' * 100}", float(i), 0.0)


def read(file: ReservedFile) -> dict[str, float]:
    return {key: value for key, value, _ in file.read_all_values()}


@pytest.fixture
def full(monkeypatch):
    """From now on the disk has no room."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return lambda: monkeypatch.setattr(os, "posix_fallocate", refuse)


def test_the_service_keeps_its_metrics_in_such_files(client):
    assert values.MmapedDict is ReservedFile


def test_every_block_is_reserved_before_it_is_written(tmp_path):
    path = tmp_path / "counter_1.db"
    with closing(ReservedFile(str(path))) as file:
        assert has_blocks(path)
        fill(file, 1000)  # twice as long as the first reserve
        assert path.stat().st_size > FIRST_BYTES
        assert has_blocks(path)
        of_all = {key: value for key, value, *_ in MmapedDict.read_all_values_from_file(path)}
        assert of_all == read(file)
        assert len(of_all) == 1000


def test_without_room_figures_are_in_memory_and_no_file_is_left(tmp_path, full, caplog):
    full()
    with closing(ReservedFile(str(tmp_path / "counter_1.db"))) as file:
        fill(file, 1000)
        assert len(read(file)) == 1000
    assert list(tmp_path.iterdir()) == []
    assert "not shared from now on: [Errno 28]" in caplog.text


def test_a_file_that_cannot_grow_is_left_as_it_is_and_goes_on_in_memory(tmp_path, full):
    path = tmp_path / "counter_1.db"
    with closing(ReservedFile(str(path))) as file:
        fill(file, 10)
        full()
        fill(file, 1000)
        assert read(file)[f"figure 999 {'x' * 100}"] == 999.0
        assert len(read(file)) == 1000
    assert path.stat().st_size == FIRST_BYTES
    left = {key for key, *_ in MmapedDict.read_all_values_from_file(path)}
    assert f"figure 9 {'x' * 100}" in left


def test_a_folder_that_is_gone_costs_no_figure(tmp_path):
    with closing(ReservedFile(str(tmp_path / "gone" / "counter_1.db"))) as file:
        fill(file, 3)
        assert len(read(file)) == 3
