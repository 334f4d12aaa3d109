"""How the threads of OpenMP, with which XGBoost boosts, wait for each other."""

from __future__ import annotations

import os


def bound_spinning() -> None:
    """Have OpenMP's threads spin for some microseconds while they wait for each other, then sleep.

    To be called before a library loads libgomp, which reads this once. A tree's steps are so short
    that two threads which sleep at once boost as slowly as one; threads that spin without end
    take from a busy machine five times what the fit needs. Fitting XGB on green 2021-01, two
    threads on two cores, idle and beside two other programs: asleep at once 10.4 and 20 s, 3,000
    spins 7.3 and 16 s, 30,000 spins 7 and 49 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
