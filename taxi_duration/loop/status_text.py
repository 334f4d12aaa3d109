"""The status in words, a line for each part."""

from __future__ import annotations

from typing import Any

from taxi_duration.evaluation.gain_words import gain_in_words

Lines = list[tuple[str, str]]  # a label and what is said under it


def status_text(status: dict[str, Any]) -> str:
    """Return what `read_status` found, for one screen."""
    lines = [
        *_serves(status["serving"]),
        *_loop(status["loop"], status["paused"]),
        *_waits(status["waiting"]),
        *_test(status["test"]),
        *_feedback(status["feedback"]),
        *_verdict(status["verdict"]),
        *_months(status["months"]),
        *_training(status["training"]),
        *_next_turn(status["next_turn"], status["paused"]),
        *(("PROBLEM", problem) for problem in status["problems"]),
        *_commands(status["commands"]),
    ]
    return "\n".join(f"{label:<10} {text}".rstrip() for label, text in lines)


def _serves(serving: dict[str, Any] | None) -> Lines:
    if serving is None:
        return [("serves", "nothing is deployed")]
    lines = []
    for label, role in (("serves", "champion"), ("beside it", "challenger")):
        if version := serving[role]:
            name = f"{version['version']} (sha256:{version['sha256'][:12]})"
            sample = "; learned from SAMPLE DATA" if version["data_source"] == "sample" else ""
            lines.append((label, f"{name}, {version['does']} since {version['since']}{sample}"))
    return lines


def _loop(loop: dict[str, Any] | None, paused: dict[str, Any] | None) -> Lines:
    if loop is None:
        return [("loop", "not known")]
    stage = loop["stage"]
    stage += f" on {loop['month']}" if loop["month"] else ""
    stage += f" since {loop['since'][:19]}" if loop["since"] else ""
    pause = "not paused"
    if paused:
        pause = f"PAUSED since {paused['at'][:19]} by {paused['who']}: {paused['reason']}"
    behind = loop["not_in_mlflow"]
    return [("loop", f"{stage}; {pause}{f'; MLflow lacks {behind} decisions' * (behind > 0)}")]


def _waits(waiting: dict[str, Any] | None) -> Lines:
    if waiting is None:
        return []
    what = f"{waiting['stage']} {waiting['version']['name']}:{waiting['version']['version']}"
    word = f"needs approval since {waiting['since'][:19]}"
    if waiting["who"]:
        word = f"approved by {waiting['who']} at {waiting['at'][:19]}"
    return [("waits", f"{what}, {word}; {waiting['why']}")]


def _test(test: dict[str, Any] | None) -> Lines:
    if test is None:
        return []
    evidence = f"{test['e_value']:.3g} of the {test['boundary']:.3g} that decide"
    ends = (test["low_min"], test["high_min"])
    gain = gain_in_words(test["gain_min"], *(() if None in ends else ends))
    seen = f"{test['blocks']} days, {test['trips']:,} rides"
    return [("evidence", f"{evidence}, {test['verdict']}: {seen}, {gain}")]


def _feedback(feedback: dict[str, Any] | None) -> Lines:
    if feedback is None:
        return [("feedback", "not known")]
    days = f"{feedback['days']} days"
    if not feedback["rides"]:
        return [("feedback", f"nobody asked for a ride in {days}")]
    last = feedback["last_at"]
    came = f"the last came {last[:19]}" if last else "none came"
    share = f"{feedback['share']:.0%} of {feedback['rides']:,} rides"
    return [("feedback", f"{share} of the last {days} have their true duration; {came}")]


def _verdict(verdict: dict[str, Any] | None) -> Lines:
    if verdict is None:
        return [("verdict", "none: nobody looked yet")]
    of = f"of {verdict['model']} on {verdict['source']}"
    why = f": {verdict['reasons'][0]}" if verdict["reasons"] else ""
    return [("verdict", f"{verdict['level']}, {verdict['age_hours']:g} hours old, {of}{why}")]


def _months(months: dict[str, Any] | None) -> Lines:
    if months is None:
        return []
    looked = f"; decided on up to {months['looked_at']}" if months["looked_at"] else ""
    return [("months", f"the champion knows {months['champion']}{looked}")]


def _training(training: dict[str, Any] | None) -> Lines:
    if training is None:
        return []
    cost = f"the last took {training['minutes']:g} minutes"
    return [("training", f"{cost}; {training['what']}: {training['gain']}")]


def _next_turn(said: list[str] | None, paused: dict[str, Any] | None) -> Lines:
    if said is None:
        return [("next turn", "fails, see below")]
    pause = [("next turn", "does nothing; without the pause it would say")] if paused else []
    labels = ["" if paused else "next turn", *["" for _ in said]]
    return [*pause, *zip(labels, said, strict=False)]


def _commands(commands: dict[str, str]) -> Lines:
    labels = ["you can", *["" for _ in commands]]
    said = (f"python pipeline.py {name:<12} {what}" for name, what in commands.items())
    return list(zip(labels, said, strict=False))
