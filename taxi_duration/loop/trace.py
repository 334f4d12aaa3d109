"""From one answer back to the bytes it was learned from, every digest on the way checked.

Prediction -> version and digest -> run and executed notebooks -> parameters, commit, libraries
-> source months with address, SHA-256 and row accounting. What is compared with what stands in
docs/loop.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taxi_duration.domain.trace_context import trace_id_of
from taxi_duration.errors import NotFoundError
from taxi_duration.live.prediction_log import PredictionLog
from taxi_duration.loop.evidence import CHANGED, MISSING, UNKNOWN, VERIFIED, Link, collect
from taxi_duration.loop.trace_answer import answer_links
from taxi_duration.loop.trace_records import card_links, file_links, source_links, trail_links


@dataclass(frozen=True)
class Trace:
    """The chain behind one prediction."""

    prediction: dict[str, Any]
    card: dict[str, Any] | None
    links: list[Link]

    @property
    def status(self) -> str:
        """The worst of the links: CHANGED, missing, unknown, or verified."""
        found = {link.status for link in self.links}
        return next((s for s in (CHANGED, MISSING, UNKNOWN) if s in found), VERIFIED)

    def of_status(self, status: str) -> list[str]:
        """Return the names of the links that are so."""
        return [f"{link.kind} {link.name}" for link in self.links if link.status == status]


def find_asked(word: str, prediction_log: PredictionLog) -> list[str]:
    """Return the ids of the predictions that a word means: its own, or those of its trace.

    Args:
        word: a prediction id, a trace id or a traceparent (W3C Trace Context).
    Raises:
        NotFoundError: the log has no such prediction.
    """
    if prediction_log.find(word) is not None:
        return [word]
    trace_id = trace_id_of(word)
    found = prediction_log.find_trace(trace_id) if trace_id else []
    if not found:
        raise NotFoundError(f"neither a prediction nor a trace {word} is in the log")
    return found


def trace_prediction(prediction_id: str, prediction_log: PredictionLog) -> Trace:
    """Follow a prediction to its source months.

    Works for every version that is kept in models/, deployed or not.

    Raises:
        NotFoundError: the log has no such prediction.
    """
    prediction = prediction_log.find(prediction_id)
    if prediction is None:
        raise NotFoundError(f"prediction {prediction_id} is not in the log")
    evidence = collect(prediction)
    links = [*answer_links(evidence), *trail_links(evidence)]
    card = evidence.card
    if card is None:
        assert evidence.problem is not None  # one of the two is there
        return Trace(prediction, None, [*links, evidence.problem])
    links += card_links(evidence, card)
    links += file_links(evidence, card)
    links += source_links(evidence, card)
    return Trace(prediction, card, links)
