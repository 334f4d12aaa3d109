"""Runs a notebook with papermill: checked parameters in, executed notebook or a clear error out."""

from __future__ import annotations

import ast
import difflib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi_duration import environment
from taxi_duration.errors import PipelineError, SettingError
from taxi_duration.logs import logged_steps

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager

log = logging.getLogger(__name__)


class NotebookError(PipelineError):
    """A cell of a notebook raised; carries where and what.

    `ename` and `evalue` are the error's class name and text inside the notebook.
    """

    def __init__(self, notebook: str, cell: int, source: str, ename: str, evalue: str) -> None:
        self.notebook, self.cell, self.ename, self.evalue = notebook, cell, ename, evalue
        first_lines = "\n".join("    " + line for line in source.strip().splitlines()[:6])
        super().__init__(
            f"{notebook} failed in cell {cell}: {ename}: {evalue}\n  the cell:\n{first_lines}"
        )


def notebook_path(name: str) -> Path:
    """Return the committed notebook of this name."""
    return environment.PROJECT_ROOT / "notebooks" / f"{name}.ipynb"


def notebook_parameters(name: str) -> set[str]:
    """Return the names in a notebook's parameters cell.

    Raises:
        PipelineError: the notebook has no cell tagged `parameters`; papermill would then
            put values first and the defaults below would win without a word. Or papermill
            does not see a line of that cell, which it reads with a pattern, not with Python. Or
            the file is no notebook, or that cell no Python.
    """
    import papermill

    path = notebook_path(name)
    assigned = _assigned_names(path)
    try:
        found = set(papermill.inspect_notebook(str(path)))
    except ValueError as error:  # an editor that keeps no kernel's name
        raise PipelineError(
            f"{path.name}: {error} Choose the kernel Python 3 in JupyterLab and save it"
        ) from error
    if not found:
        raise PipelineError(f"{path.name} has no cell tagged 'parameters' with assignments in it")
    if unseen := assigned - found:
        raise PipelineError(
            f"{path.name}: papermill does not see {', '.join(sorted(unseen))} in the parameters "
            "cell; write NAME: type = literal, with no other '=' in the line, comment included, "
            "and no '|' in the type"
        )
    return found


def _assigned_names(path: Path) -> set[str]:
    """Names that Python itself finds assigned in the cell tagged `parameters`."""
    cells = read_notebook(path).cells
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    try:
        nodes = [node for source in tagged for node in ast.walk(ast.parse(source))]
    except SyntaxError as error:
        raise PipelineError(
            f"{path.name}: the parameters cell is no Python: {error.msg} in {error.text!r}"
        ) from error
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def read_notebook(path: Path) -> Any:
    """Return a notebook in the form of nbformat 4.

    Raises:
        PipelineError: the file is none; says how to get the committed one back.
        OSError: as `open`.
    """
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, LookupError, AttributeError, TypeError, nbformat.ValidationError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PipelineError(
            f"{path.name} is no notebook: {said:.120}; mend it, or `git checkout {path.name}` in "
            f"{path.parent.name}/ brings the committed one back"
        ) from error


def check_parameter_names(given: Iterable[str], notebooks: Iterable[str]) -> None:
    """Refuse names that no notebook of the chain takes.

    Raises:
        SettingError: names the parameter and the nearest known one.
    """
    known = set().union(*(notebook_parameters(name) for name in notebooks))
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingError(
                f"parameter {name} is not known{hint} (known: {', '.join(sorted(known))})"
            )


def execute(
    name: str,
    output: Path,
    parameters: Mapping[str, Any],
    kernel: AsyncKernelManager | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Execute one notebook into `output`, passing the parameters it takes.

    Args:
        name: of the committed notebook.
        output: where the executed notebook goes, also when a cell fails.
        parameters: by name; those that the notebook does not take are left out.
        kernel: that was started ahead; it is ended here. A private one is started when None.
        say: prints a line of progress from inside the notebook, as soon as it is logged there.
    Raises:
        NotebookError: a cell raised or the kernel died; the half-run notebook is kept at
            `output`.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    wanted = notebook_parameters(name)
    given = {name: value for name, value in parameters.items() if name in wanted}
    try:
        with _heard(say or log.debug):
            _run_papermill(name, output, given, kernel)
    except PapermillExecutionError as error:
        where = (f"{name}.ipynb", error.cell_index, error.source)
        raise NotebookError(*where, error.ename, error.evalue) from error
    except DeadKernelError as error:
        why = "the notebook's process died or was killed (out of memory?)"
        where = (f"{name}.ipynb", *_running_cell(output))
        raise NotebookError(*where, type(error).__name__, why) from error


def _run_papermill(
    name: str, output: Path, parameters: dict[str, Any], kernel: AsyncKernelManager | None
) -> None:
    import papermill

    from taxi_duration.chain import quick_saves

    papermill.execute_notebook(
        str(notebook_path(name)),
        str(output),
        parameters=parameters,
        cwd=str(environment.PROJECT_ROOT),
        engine_name=quick_saves.__name__,
        kernel_name="python3",
        progress_bar=False,
        log_output=True,
        kernel=kernel,
    )


class _Steps(logging.Handler):
    """Says the steps that are logged in what it handles."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say them, one a line."""
        for step in logged_steps(record.getMessage()):
            self._say(f"      {step}")


@contextmanager
def _heard(say: Callable[[str], None]) -> Iterator[None]:
    """Say the steps that cells log; papermill logs their output as it comes."""
    talker, handler = logging.getLogger("papermill"), _Steps(say)
    before = talker.level
    talker.addHandler(handler)
    talker.setLevel(logging.INFO)
    try:
        yield
    finally:
        talker.removeHandler(handler)
        talker.setLevel(before)


def _running_cell(executed: Path) -> tuple[int, str]:
    """Position and source of the cell that papermill marked as running when it saved."""
    import nbformat

    for position, cell in enumerate(nbformat.read(executed, as_version=4).cells):
        if cell.metadata.get("papermill", {}).get("status") == "running":
            return position, cell.source
    return 0, ""
