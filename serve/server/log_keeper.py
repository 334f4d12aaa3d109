"""A process that moves the rows of all workers into the prediction log, at a low priority.

A thread of a worker would take turns with its answers for the interpreter's lock, and would move
10,000 rides while the next ones are answered; rows can wait, answers cannot.
"""

from __future__ import annotations

import gc
import os
import signal

from flask import Flask

from serve.core.answering import Answering
from serve.server.worker import STOPS, watch_parent

# A sixth of the processor time of a busy worker: enough for the single rides that two cores answer,
# with their shadow's. What arrays leave behind is moved when they pause.
NICE = 8
# Collections look for cycles, which rows never form, but a collection for each 700 of them took a
# tenth of the time that it takes to move them.
COLLECT_EVERY = 20_000  # objects


def keep_log(app: Flask, alive: int) -> None:
    """Move rows until a signal of STOPS, then those that are left.

    Args:
        app: its background threads not started.
        alive: pipe that reads as closed when the parent is gone.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, STOPS)  # before any thread starts: all inherit it
    os.nice(NICE)
    gc.freeze()  # as in a worker
    gc.set_threshold(COLLECT_EVERY)
    watch_parent(alive)
    answering: Answering = app.extensions["taxi"]
    answering.log.start(as_keeper=True)
    signal.sigwait(STOPS)
    answering.log.close()
