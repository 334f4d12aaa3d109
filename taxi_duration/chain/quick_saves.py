"""A papermill engine that takes a kernel started ahead, and saves the half-run notebook quickly.

papermill writes, checks and indents the whole notebook before and after every cell, while the
kernel waits: a tenth of a second each time when there are pictures in it. Between two code cells
nothing happens that a reader of the file would miss.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.log import logger

from taxi_duration.chain.kernels import PrivateKernelManager


class QuickSaves(NBClientEngine):
    """papermill's own engine, but for its kernel and how it saves until the last cell is done."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        start_timeout: int = 60,
        kernel: AsyncKernelManager | None = None,
        **_: Any,
    ) -> Any:
        """Execute the cells; afterwards papermill saves as it always does.

        Args:
            kernel: that was started already, and is ended here; a private one is started when None.
        """
        nb_man.save = partial(_save, nb_man)
        client = PapermillNotebookClient(
            nb_man, km=kernel, kernel_name=kernel_name, kernel_manager_class=PrivateKernelManager,
            startup_timeout=start_timeout, log=logger, log_output=log_output,
        )  # fmt: skip
        client.owns_km = True
        try:
            return client.execute()
        finally:
            del nb_man.save


def _save(nb_man: NotebookExecutionManager, **_: Any) -> None:
    """Write the notebook when a code cell is about to run, or is running for long."""
    if any(c.cell_type == "code" and _is_running(c) for c in nb_man.nb.cells):
        Path(nb_man.output_path).write_text(json.dumps(nb_man.nb, ensure_ascii=False))
    nb_man.last_save_time = nb_man.now()


def _is_running(cell: Any) -> bool:
    return cell.metadata["papermill"]["status"] == NotebookExecutionManager.RUNNING


papermill_engines.register(__name__, QuickSaves)
