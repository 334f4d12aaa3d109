"""How many examples hypothesis generates, and how."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def bounded(examples: int):
    """Generate so many examples; machines under test may be slow, which is not our question."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        database=None,
    )
