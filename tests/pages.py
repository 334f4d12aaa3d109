"""Takes README and docs apart: tables, code, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Page:
    """A Markdown page of the project.

    Args:
        path: of the file.
    """

    path: Path

    @cached_property
    def text(self) -> str:
        """The whole page."""
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """Return the fenced blocks of a language, in their order."""
        return [text for found, text in FENCE.findall(self.text) if found == language]

    def code(self) -> list[str]:
        """Return what stands in backticks, on one line each."""
        return [re.sub(r"\s+", " ", text) for text in INLINE.findall(self.prose)]

    def links(self) -> list[str]:
        """Return where links and pictures lead."""
        return LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """Return the names of the headings, as GitHub makes them."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def rows(self, first: str) -> list[list[str]]:
        """Return the rows of all tables whose first column has this title, cell by cell."""
        rows, wanted = [], False
        for line in self.prose.splitlines():
            if not line.startswith("|"):
                wanted = False
                continue
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if cells[0] == first:
                wanted = True
            elif wanted and not set(cells[0]) <= set("-: "):
                rows.append(cells)
        return rows


def pages() -> list[Page]:
    """Return README and all pages of docs/."""
    return [Page(PROJECT / "README.md"), *(Page(p) for p in sorted(PROJECT.glob("docs/*.md")))]


def all_rows(first: str) -> list[list[str]]:
    """Return the rows of all pages' tables whose first column has this title."""
    return [row for page in pages() for row in page.rows(first)]


def named(first: str) -> set[str]:
    """Return what stands in backticks in the first column of such tables."""
    return {name for row in all_rows(first) for name in INLINE.findall(row[0])}
