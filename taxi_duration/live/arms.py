"""Which arm of an A/B test answers a ride."""

from __future__ import annotations

import hashlib


def arm_of(key: str, ab_share: float, salt: str) -> str:
    """Return the arm that answers a ride: `champion` or `challenger`.

    The same key, share and salt always give the same arm, in any process and on any host;
    raising the share only moves rides from the champion to the challenger.

    Args:
        key: the ride's id, or the prediction's id when the ride has none.
        ab_share: share of rides for the challenger, 0 to 1.
        salt: identifies the experiment (the challenger's digest), so that each experiment draws
            other rides.
    """
    digest = hashlib.sha256(f"{salt}:{key}".encode()).digest()
    point = int.from_bytes(digest[:8]) / 2**64
    return "challenger" if point < ab_share else "champion"
