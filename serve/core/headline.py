"""One line on top of the operators' page: whether all is well, and if not, what is wrong."""

from __future__ import annotations

from typing import Any

from taxi_duration.timestamps import DAY_SECONDS

# A ride's truth is known an hour after its start; a day without any is no lull.
SILENT_SECONDS = DAY_SECONDS
FEW_SCORED = 30  # the interval of the mean error is of a normal distribution


def headline(content: dict[str, Any]) -> dict[str, str]:
    """Return `level` (ok, watch, alarm or unknown) and `text` for /monitor/data's content.

    Args:
        content: with `at`, `serving`, `trouble`, `log` and `verdict`, see `LivePage.content`.
    """
    level, text = _working(content) or _judged(content) or _right(content)
    return {"level": level, "text": text}


def _working(content: dict[str, Any]) -> tuple[str, str] | None:
    """What keeps answers from being given, logged or asked for; None when nothing does."""
    log = content["log"]
    if content["serving"] is None:
        return "alarm", "Nobody is answered: no model serves."
    if log["trouble"]:
        return "alarm", f"The prediction log cannot be read: {log['trouble']}"
    if content["trouble"]:
        return "watch", f"To be watched: {content['trouble'][0]}"
    if log["last_ride_at"] is None:
        return "unknown", "No ride was asked for yet."
    age = content["at"] - log["last_ride_at"]
    return ("unknown", f"No ride for {_ago(age)}.") if age > SILENT_SECONDS else None


def _judged(content: dict[str, Any]) -> tuple[str, str] | None:
    """What the monitor found to be wrong with the champion; None for nothing."""
    verdict, champion = content["verdict"], content["serving"]["champion"]
    if verdict is None or verdict.model != champion["model"]:
        return None
    for level in ("alarm", "watch"):
        texts = [reason.text for reason in verdict.reasons if reason.level == level]
        if texts:
            return level, f"{'Look at this' if level == 'alarm' else 'To be watched'}: {texts[0]}"
    return None


def _right(content: dict[str, Any]) -> tuple[str, str]:
    """How far off the champion's answers are, beside its validation month."""
    log, champion = content["log"], content["serving"]["champion"]
    if log["last_feedback_at"] is None:
        return "unknown", "No feedback yet: nobody can tell whether the answers are right."
    age = content["at"] - log["last_feedback_at"]
    if age > SILENT_SECONDS:
        return "watch", f"No feedback for {_ago(age)}: nobody can tell whether answers are right."
    asked = [(row["model"], row["arm"]) for row in log["models"]]
    if (champion["model"], "champion") not in asked:
        return "unknown", f"{champion['model']} was asked for no ride yet."
    row = log["models"][asked.index((champion["model"], "champion"))]
    if row["scored"] < FEW_SCORED:
        return "unknown", f"Too early to tell: true durations that count so far: {row['scored']}."
    return _compared(row, champion["validation_mae"])


def _compared(row: dict[str, Any], expected: list[float]) -> tuple[str, str]:
    """Compare the interval of the live error with the validation's, with and without distance."""
    off = f"nswers are off by {row['mean_error']:.1f} minutes"
    if not expected:
        return "unknown", f"A{off}; what to expect is not known."
    if row["error_low"] > max(expected):
        return "watch", f"A{off}, more than the {max(expected):.1f} of the validation month."
    if row["error_high"] < min(expected):
        return "ok", f"Fine: a{off}, less than the {min(expected):.1f} of the validation month."
    return "ok", f"Fine: a{off}, as on the validation month."


def _ago(seconds: float) -> str:
    days = int(seconds // DAY_SECONDS)
    return f"{days} day{'s' if days > 1 else ''}"
