"""The commands of README and docs: which there are, and which cannot be run by a test."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pages import Page, pages

# A command that is not named here is run. Each of these has the reason why it is not.
CANNOT = {
    r"make test\b": "these very tests; .ci/run runs them from a clean checkout",
    r"make lab\b": "JupyterLab on port 8888 of this machine, until Ctrl-C",
    r"make mlflow\b": "MLflow's pages on port 5000 of this machine, until Ctrl-C",
    r"docker\b": "needs a Docker engine",
    r"ssh\b": "needs another machine",
    r"conda\b": "needs conda",
    r"pip install\b": "needs a package index; `make setup` installs the same set",
    r"MLFLOW_TRACKING_URI=http://HOST:5000 ": "needs an MLflow server on another machine",
    r"python pipeline.py backtest ": "takes minutes; tests/loop/test_backtest.py lives less",
    r"MODELS_DIR=/srv/model ": "needs a folder outside the project",
    r"dask (scheduler|worker) ": "needs other hosts; tests/data/test_cluster_months.py has its own",
    r"ENGINE=dask DASK_SCHEDULER=": "needs other hosts; test_chain_on_dask.py has its own",
    r"aws\b": "needs an account; tests/test_cloudformation.py creates the stack on a stand-in",
    r"kubectl\b": "needs a cluster; tests/test_kubernetes.py checks the objects",
}


@dataclass(frozen=True)
class Server:
    """A documented command that serves until it is stopped.

    Args:
        port: as documented.
        ping: path that answers 200 when it is ready.
        setting: what takes the free port that a test gives it: a variable, or an option.
        stays: later commands ask it; others are stopped at once.
    """

    port: int
    ping: str
    setting: str
    stays: bool = False


SERVERS = {
    r"make serve\b": Server(9696, "/ready", "PORT", stays=True),
    r"mlflow models serve ": Server(5001, "/ping", "--port"),
}


def commands(page: Page) -> list[str]:
    """Return the commands of a page's shell blocks; what a line continues belongs to it."""
    found = []
    for block in page.blocks("sh"):
        lines = block.replace("\\\n", " ").splitlines()
        found += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return found


def all_commands() -> list[tuple[str, str]]:
    """Return every page's name and command, in order."""
    return [(page.path.name, command) for page in pages() for command in commands(page)]


def why_not(command: str) -> str | None:
    """Return why a command is not run; None when it is."""
    return next((why for how, why in CANNOT.items() if re.match(how, command)), None)


def server_of(command: str) -> Server | None:
    """Return what a command serves; None when it ends by itself."""
    return next((server for how, server in SERVERS.items() if re.match(how, command)), None)
