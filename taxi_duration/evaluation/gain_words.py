"""How a gain is told: by how many minutes one version's answers are nearer than another's."""

from __future__ import annotations

import math


def gain_in_words(gain: float, low: float = -math.inf, high: float = math.inf) -> str:
    """Return `nearer by 0.312 min (0.101 to 0.523)`, or `farther off by …`.

    Args:
        gain: minutes by which the error is smaller; negative when it is larger.
        low, high: of its interval, minutes; not told when one is infinite, as with too few days.
    """
    said = f"{_side(gain)} by {_told(gain):.3f} min" if _told(gain) else "as near"
    if math.isinf(low) or math.isinf(high):
        return said
    if {_side(low), _side(high)} != {_side(gain)}:
        return f"{said} ({_end(low)} to {_end(high)})"
    small, large = sorted((_told(low), _told(high)))
    return f"{said} ({small:.3f} to {large:.3f})"


def _told(minutes: float) -> float:
    """Minutes without their sign, as many digits as are told."""
    return abs(round(minutes, 3))


def _side(minutes: float) -> str:
    return "nearer" if minutes >= 0 else "farther off"


def _end(minutes: float) -> str:
    return f"{_told(minutes):.3f} {_side(minutes)}"
