"""One HTML page of a run: a summary, then every executed notebook, plots included."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from taxi_duration.files import write_bytes

REPORT_FILE = "report.html"
BEGIN, END = "<main>", "</main>"  # the page around all cells is nbconvert's


def write_report(folder: Path, notebooks: Sequence[str], info: dict[str, Any]) -> Path:
    """Write `report.html` from the executed notebooks in a run's folder; return its path.

    Args:
        folder: holds `<name>.ipynb`; those that are missing are left out.
        notebooks: names in order.
        info: content of run.json.
    """
    title = {"title": f"Run {info['run_id']}"}
    summary = new_markdown_cell(_summary(info), id="summary")
    page = _as_html(new_notebook(cells=[summary], metadata=title))
    begin, _, end = page.rpartition(END)
    html = "".join([begin, *_rendered(folder, notebooks), END, end])
    write_bytes(folder / REPORT_FILE, html.encode())
    return folder / REPORT_FILE


def render_ahead(folder: Path, notebooks: Sequence[str]) -> None:
    """Render executed notebooks now, so that this process writes their report sooner."""
    _rendered(folder, notebooks)


def _rendered(folder: Path, notebooks: Sequence[str]) -> list[str]:
    """Return each notebook that is there as HTML, below its name."""
    paths = [path for name in notebooks if (path := folder / f"{name}.ipynb").exists()]
    found = [(path, path.stat()) for path in paths]
    return [_rendered_once(path, stat.st_mtime_ns, stat.st_size) for path, stat in found]


@lru_cache(maxsize=8)  # more than a chain has notebooks
def _rendered_once(path: Path, _mtime_ns: int, _size: int) -> str:
    notebook = nbformat.read(path, as_version=4)
    name = new_markdown_cell(f"---\n*{escape(path.name)}*")
    notebook.cells = [name, *notebook.cells]
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"{path.stem}-{i}"  # cells of several notebooks may carry the same id
    return _as_html(notebook).partition(BEGIN)[2].rpartition(END)[0]


def _as_html(notebook: Any) -> str:
    html: str = _exporter().from_notebook_node(notebook)[0]
    return html


@cache  # to read and compile its templates takes longer than to render a short notebook
def _exporter() -> Any:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="lab", embed_images=True)


def _summary(info: dict[str, Any]) -> str:
    rows = {
        **info["settings"],
        "data source": info.get("data_source"),
        "commit": info["git_commit"],
    }
    rows["model"] = (
        f"{info['model']['name']}:{info['model']['version']}" if info.get("model") else "–"
    )
    lines = "\n".join(f"| {name} | `{escape(str(value))}` |" for name, value in rows.items())
    warning = (
        "\n> **Sample data: these figures describe generated trips, not New York.**\n"
        if info.get("data_source") == "sample"
        else ""
    )
    return f"# Run {escape(info['run_id'])}\n{warning}\n| | |\n| --- | --- |\n{lines}"
