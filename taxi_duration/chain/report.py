"""One HTML page of a run: a summary, then every executed notebook, plots included."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell, new_notebook

from taxi_duration.files import write_bytes

REPORT_FILE = "report.html"


def write_report(folder: Path, notebooks: list[str], info: dict[str, Any]) -> Path:
    """Write `report.html` from the executed notebooks in a run's folder; return its path.

    Args:
        folder: holds `<name>.ipynb`; those that are missing are left out.
        notebooks: names in order.
        info: content of run.json.
    """
    from nbconvert import HTMLExporter

    cells = [new_markdown_cell(_summary(info))]
    for name in notebooks:
        path = folder / f"{name}.ipynb"
        if path.exists():
            cells.append(new_markdown_cell(f"---\n*{escape(name)}.ipynb*"))
            cells.extend(nbformat.read(path, as_version=4).cells)
    page = new_notebook(cells=_with_ids(cells), metadata={"title": f"Run {info['run_id']}"})
    html, _ = HTMLExporter(template_name="lab", embed_images=True).from_notebook_node(page)
    write_bytes(folder / REPORT_FILE, html.encode())
    return folder / REPORT_FILE


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


def _with_ids(cells: list[Any]) -> list[Any]:
    """Cells of several notebooks may carry the same id."""
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    return cells
