"""Branches beside each other: within the cores, in order, and a failure that says whose it is."""

from __future__ import annotations

import threading

import pytest

from taxi_duration.chain.branches import Branch, run_branches
from taxi_duration.errors import PipelineError


class Watched:
    """Counts the threads that branches keep busy at once; those at work wait for each other."""

    def __init__(self, together: int = 1) -> None:
        self.busy = self.most = 0
        self.began: list[str] = []
        self._lock, self._meet = threading.Lock(), threading.Barrier(together)

    def branch(self, name: str, threads: int, meets: bool = False) -> Branch[str]:
        def work() -> str:
            with self._lock:
                self.began.append(name)
                self.busy += threads
                self.most = max(self.most, self.busy)
            if meets:
                self._meet.wait(30)
            with self._lock:
                self.busy -= threads
            return name.lower()

        return Branch(name, threads, work)


def test_results_come_in_the_order_that_was_asked_for():
    watched = Watched()
    branches = [watched.branch(name, 1) for name in "ABCDE"]
    assert list(run_branches(branches, cores=3)) == list("abcde")


def test_branches_run_at_once_as_far_as_there_are_cores():
    watched = Watched(together=2)
    pair = [watched.branch("A", 1, meets=True), watched.branch("B", 1, meets=True)]
    assert list(run_branches(pair, cores=2)) == ["a", "b"]
    assert watched.most == 2


@pytest.mark.parametrize("cores", [2, 3, 4])
def test_no_more_threads_are_busy_than_there_are_cores(cores):
    watched = Watched()
    list(run_branches([watched.branch(f"T{i}", 1 + i % 2) for i in range(20)], cores))
    assert watched.most <= cores


def test_widest_branch_begins_first_and_one_that_is_too_wide_runs_alone():
    watched = Watched()
    branches = [watched.branch("A", 1), watched.branch("B", 2), watched.branch("C", 8)]
    assert list(run_branches(branches, cores=1)) == ["a", "b", "c"]
    assert watched.began == ["C", "B", "A"]


def test_failure_names_its_branch_and_those_that_wait_do_not_begin():
    began = []

    def fail() -> None:
        raise ValueError("too steep")

    branches = [Branch("A", 2, fail), Branch("B", 1, lambda: began.append("B"))]
    branches += [Branch(f"C{i}", 1, lambda: began.append("C")) for i in range(50)]
    with pytest.raises(PipelineError, match=r"^A: ValueError: too steep$"):
        list(run_branches(branches, cores=1))
    assert len(began) < 51
