"""Kernels that nobody else can talk to, forked from the warm process.

Each notebook has a kernel process of its own and shares no state with the others, only the loaded
modules.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

from taxi_duration.chain.warm import end_with_caller

if TYPE_CHECKING:
    import subprocess

    from jupyter_client.connect import KernelConnectionInfo


class PrivateKernelManager(AsyncKernelManager):
    """Uses files as sockets that only this user can open; Jupyter's own are open TCP ports."""

    def __init__(self, **kwargs: Any) -> None:
        """Take over jupyter_client's arguments."""
        # A folder of their own: jupyter_client would put them into the working directory,
        # where two chains at once could take each other's.
        self._sockets = tempfile.TemporaryDirectory(prefix="kernel-")
        super().__init__(**{"transport": "ipc", "ip": f"{self._sockets.name}/socket", **kwargs})


class WarmKernelManager(PrivateKernelManager):
    """A kernel manager whose kernels are forked from the warm process."""

    def __init__(self, **kwargs: Any) -> None:
        """Take over jupyter_client's arguments."""
        super().__init__(**kwargs)
        self.provisioner = WarmProvisioner(
            kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self, connection_info={}
        )

    async def _async_interrupt_kernel(self) -> None:
        # jupyter_client interrupts an idle kernel before it asks it to end, and the kernel
        # then reports an error where there is none.
        if not self.shutting_down:
            await super()._async_interrupt_kernel()


class WarmProvisioner(LocalProvisioner):
    """Starts a kernel by forking the warm process instead of a new interpreter."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel that `cmd` (python -m ipykernel_launcher …) describes."""
        process = _ForkedKernel(cmd[3:], kwargs.get("env"), kwargs.get("cwd"))
        self.process = cast("subprocess.Popen[bytes]", process)
        self.pid, self.pgid = process.pid, None
        return self.connection_info


class _ForkedKernel:
    """A forked process with the part of Popen's interface that a provisioner uses."""

    stdin = stdout = stderr = None

    def __init__(self, argv: Sequence[str], env: dict[str, str] | None, cwd: str | None) -> None:
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=_run_kernel, args=(list(argv), env, cwd))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.pid is not None and self._process.is_alive():
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run_kernel(argv: list[str], env: dict[str, str] | None, cwd: str | None) -> None:
    """Become a kernel: what `python -m ipykernel_launcher` does, without the imports."""
    from ipykernel import kernelapp

    end_with_caller()
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    if cwd:
        os.chdir(cwd)
    sys.argv = ["ipykernel_launcher", *argv]
    options = [
        # The kernel also ends itself when the warm process, its parent, is gone.
        f"--IPKernelApp.parent_handle={os.getppid()}",
        # matplotlib was imported before there was a shell that it could tie itself to.
        "--IPKernelApp.matplotlib=inline",
        # The layout already leaves no margin to cut away, and to look for one draws a picture anew.
        "--InlineBackend.print_figure_kwargs={'bbox_inches': None}",
    ]
    with contextlib.suppress(SystemExit):
        kernelapp.launch_new_instance(argv=[*argv, *options])
