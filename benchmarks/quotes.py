"""Holds tables of README and docs against the files in results/, and writes what changed.

A table under the comment `<!-- results: NAME -->` quotes benchmarks/results/NAME.json: the number,
or numbers, of a cell are those of the figure with the row's first cell as `of` and the column's
title as `what`, rounded as the cell rounds.

    python benchmarks/quotes.py            # says which cells differ; exit code 1 when some do
    python benchmarks/quotes.py --write    # writes the files' numbers into the cells
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from results import PROJECT, read_kept

COMMENT = re.compile(r"<!-- results: ([\w-]+) -->")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
CODE = re.compile(r"`[^`]*`")
PAGES = ("README.md", "docs/*.md")


@dataclass(frozen=True)
class Cell:
    """A cell of a page's table: where it is, what it is about, and the file it quotes.

    Args:
        line, column: from 0, in the page and among the line's cells.
        name: of the file; None under no comment.
    """

    line: int
    column: int
    of: str
    what: str
    text: str
    name: str | None

    @property
    def numbers(self) -> list[str]:
        """The numbers in it, as written; those in code are no figures."""
        return NUMBER.findall(CODE.sub("", self.text))


def cells_of(page: str) -> Iterator[Cell]:
    """Yield the cells of a page's tables, without titles and first columns."""
    name, titles = None, []
    for number, line in enumerate(page.splitlines()):
        if found := COMMENT.search(line):
            name, titles = found[1], []
        elif not line.startswith("|"):
            # A blank line parts the comment from its table.
            name, titles = (name if not titles and not line else None), []
        elif not titles:
            titles = [plain(cell) for cell in split(line)]
        elif not set(line) <= set("|-: "):
            texts = split(line)
            for column, text in enumerate(texts[1:], 1):
                yield Cell(number, column, plain(texts[0]), titles[column], text, name)


def split(line: str) -> list[str]:
    """Return the cells of a table's line."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def plain(text: str) -> str:
    """Return a cell's words without emphasis and code marks."""
    return text.replace("*", "").replace("`", "")


def problem(cell: Cell, kept: dict[str, dict[str, Any]]) -> str | None:
    """Say how a cell differs from the file that it quotes; None when it does not."""
    if not cell.numbers:
        return None
    where = f"{cell.of}, {cell.what}: {cell.text}"
    try:
        told = numbers_for(cell, kept)
    except KeyError:
        return f"{where}; benchmarks/results/{cell.name}.json has no such figure"
    if told != cell.numbers:
        return f"{where}; benchmarks/results/{cell.name}.json says {' / '.join(told)}"
    return None


def numbers_for(cell: Cell, kept: dict[str, dict[str, Any]]) -> list[str]:
    """Return the figure's numbers, each rounded as the cell's.

    Raises:
        KeyError: there is no such file, or no such figure in it.
    """
    for figure in kept[cell.name or ""]["figures"]:
        if (figure["of"], figure["what"]) == (cell.of, cell.what):
            value = figure["value"]
            values = value if isinstance(value, list) else [value]
            shown = [*cell.numbers, *["0"] * len(values)]
            return [
                f"{v:,.{len(text.partition('.')[2])}f}"
                for v, text in zip(values, shown, strict=False)
            ]
    raise KeyError(cell)


def rewritten(page: str, kept: dict[str, dict[str, Any]]) -> str:
    """Return a page with the files' numbers in its cells."""
    lines = page.splitlines(keepends=True)
    for cell in cells_of(page):
        if cell.name is None or not cell.numbers or problem(cell, kept) is None:
            continue
        told = iter(numbers_for(cell, kept))
        texts = split(lines[cell.line])
        texts[cell.column] = NUMBER.sub(lambda _, told=told: next(told), cell.text)
        lines[cell.line] = f"| {' | '.join(texts)} |\n"
    return "".join(lines)


def main() -> int:
    """Say or write what differs."""
    kept, differ = read_kept(), 0
    for path in (found for pattern in PAGES for found in sorted(PROJECT.glob(pattern))):
        page = path.read_text()
        if "--write" in sys.argv:
            path.write_text(page := rewritten(page, kept))
        for cell in cells_of(page):
            if cell.name and (text := problem(cell, kept)):
                print(f"{path.name}: {text}")
                differ += 1
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
