"""Kernels that nobody else can talk to, forked from the warm process.

Each notebook has a kernel process of its own and shares no state with the others, only the loaded
modules.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import queue
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.utils import run_sync

from taxi_duration import environment
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
        self.client_factory = QuickClient

    @property
    def kernel_spec(self) -> KernelSpec:
        """That of this Python, whichever `python3` Jupyter would find first among the user's."""
        from ipykernel.kernelspec import get_kernel_dict  # not before a kernel is started

        return KernelSpec(**get_kernel_dict())


class QuickClient(AsyncKernelClient):
    """Is ready when the kernel is: jupyter_client's own then listens on till 0.2 s are silent."""

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Return when the kernel answers and is heard; nbclient passes over answers to others.

        Raises:
            RuntimeError: the kernel died, or says nothing for so many seconds.
        """
        until = time.monotonic() + (timeout or math.inf)
        while True:
            self.kernel_info()
            with contextlib.suppress(queue.Empty):
                reply = await self.shell_channel.get_msg(timeout=1)
                await self.iopub_channel.get_msg(timeout=0.2)
                self._handle_kernel_info_reply(reply)
                return
            if not await self.is_alive():
                raise RuntimeError("the kernel died before it was ready")
            if time.monotonic() > until:
                raise RuntimeError(f"the kernel says nothing for {timeout} seconds")


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

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = 0.01, restart: bool = False
    ) -> None:
        # It is gone within a fiftieth of a second, and jupyter_client looks ten times a second.
        await super()._async_finish_shutdown(waittime, pollinterval, restart)


@contextlib.contextmanager
def kernels_ahead() -> Iterator[KernelsAhead]:
    """Give kernels to the block; the one that nobody took is ended with it."""
    kernels = KernelsAhead()
    try:
        yield kernels
    finally:
        kernels.end()


class KernelsAhead:
    """Starts the kernel of the next notebook while another one still computes."""

    def __init__(self) -> None:
        self._next: WarmKernelManager | None = None

    def start(self) -> None:
        """Start a kernel, if none waits; it makes itself ready while the caller goes on."""
        if self._next is not None and run_sync(self._next.is_alive)():
            return
        self.end()
        self._next = WarmKernelManager(kernel_name="python3")
        # As nbclient starts one: what is executed stays out of the user's history.
        history = ["--HistoryManager.hist_file=:memory:"]
        cwd = str(environment.PROJECT_ROOT)
        run_sync(self._next.start_kernel)(extra_arguments=history, cwd=cwd)

    def take(self) -> WarmKernelManager:
        """Return the kernel that waits, or else one started now; who takes it ends it."""
        self.start()
        taken, self._next = self._next, None
        assert taken is not None
        return taken

    def end(self) -> None:
        """End the kernel that waits, if there is one."""
        if self._next is not None:
            run_sync(self._next.shutdown_kernel)(now=True)
            self._next = None


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
