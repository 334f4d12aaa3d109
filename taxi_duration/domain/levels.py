"""How worried to be: the levels of every alarm and verdict."""

from __future__ import annotations

LEVELS = ("ok", "watch", "alarm")  # rising
