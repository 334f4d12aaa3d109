"""The monitor's verdict as it lies on disk: the loop writes it, the service shows it."""

from __future__ import annotations

VERDICT_FILE = "monitor.json"
PAGE_FILE = "monitor.html"
