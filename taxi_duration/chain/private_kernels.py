"""Kernels that are talked to over sockets which nobody else on the machine can open."""

from __future__ import annotations

import tempfile
from typing import Any

from jupyter_client.manager import AsyncKernelManager


class PrivateKernelManager(AsyncKernelManager):
    """A kernel manager that uses files as sockets, where Jupyter's own opens TCP ports."""

    def __init__(self, **kwargs: Any) -> None:
        """Take over jupyter_client's arguments."""
        # A folder of their own: jupyter_client would put them into the working directory,
        # where two chains at once could take each other's.
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        super().__init__(**{"transport": "ipc", "ip": f"{self._sockets.name}/socket", **kwargs})
