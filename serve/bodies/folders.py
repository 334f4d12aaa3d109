"""Takes folders of this and the training machine out of answers: clients need not know them."""

from __future__ import annotations

import re
from typing import Any

# Of an address with a host, the slashes follow a colon, a slash or a word.
_FOLDERS = re.compile(r"(?<![\w.:/])(?:file:/*|~?/)(?:[^/\s'\"`,;]+/)*(?=[^\s])")


def without_folders(content: Any) -> Any:
    """Return JSON-able content in which files are called by their names alone."""
    if isinstance(content, str):
        if content.startswith(("/", "~/", "file:")):  # with spaces, too
            return content.rstrip("/").rpartition("/")[2]
        return _FOLDERS.sub("", content)
    if isinstance(content, dict):
        return {name: without_folders(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_folders(value) for value in content]
    return content
