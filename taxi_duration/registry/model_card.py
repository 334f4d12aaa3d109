"""A version's card as Hugging Face reads model cards: YAML between lines of ---, then Markdown.

Source: https://huggingface.co/docs/hub/model-cards and its `model-index` of results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

TASK = "tabular-regression"  # of Hugging Face's list of tasks
LICENSE = "mit"
# Our metric -> its type of Hugging Face where there is one, and its name with the unit.
METRICS = {
    "rmse": ("rmse", "RMSE, minutes"),
    "mae": ("mae", "MAE, minutes"),
    "bias": ("bias", "mean error, minutes"),
    "coverage": ("coverage", "share of truths within P10-P90"),
    "pinball": ("pinball", "mean pinball loss of P10, P50, P90, minutes"),
    "crps": ("crps", "CRPS from the three quantiles, minutes"),
}
ASKED = {"with_distance": "distance given", "without_distance": "no distance"}
Card = Mapping[str, Any]


def as_model_card(card: Card) -> str:
    """Return the text of a README.md for the version of this card (card.json)."""
    header = yaml.safe_dump(_header(card), sort_keys=False, allow_unicode=True)
    parts = [_purpose(card), _use(card), _results(card), _segments(card), _learned(card)]
    return f"---\n{header}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _header(card: Card) -> dict[str, Any]:
    return {
        "license": LICENSE,
        "library_name": "taxi-duration",
        "pipeline_tag": TASK,
        "tags": [TASK, "nyc-taxi", card["service"], card["model_kind"].lower(),
                 *(["synthetic-data"] if _is_sample(card) else [])],
        "model-index": [{
            "name": _ref(card),
            "results": [
                {
                    "task": {"type": TASK, "name": "minutes of a ride"},
                    "dataset": {
                        "type": "nyc-tlc-trip-records",
                        "name": f"TLC {card['service']} {card['val_data']}, {asked}",
                        "args": {"months": card["val_data"], "asked": asked},
                    },
                    "metrics": [
                        {"type": kind, "name": name, "value": card["metrics"][key][metric]}
                        for metric, (kind, name) in METRICS.items()
                        if metric in card["metrics"][key]
                    ],
                }
                for key, asked in ASKED.items() if key in card["metrics"]
            ],
        }],
    }  # fmt: skip


def _purpose(card: Card) -> str:
    sample = (
        "\n\n**It was trained on generated trips, not on real ones: the figures describe those.**"
        if _is_sample(card)
        else ""
    )
    return (
        f"# {_ref(card)}\n\n"
        f"How long a {card['service']} taxi ride in New York takes, in minutes, from zone to zone, "
        f"asked before it starts; with an interval from P10 to P90. {card['model_kind']}, trained "
        f"on {card['train_data']}, scored once on {card['val_data']}, both from the trip records "
        f"of New York's Taxi and Limousine Commission.{sample}\n\n"
        "Meant for planning rides that last 1 to 60 minutes. Not meant for other cities, for "
        "judging drivers, or for what may fail when one answer in five lies outside its interval."
    )


def _use(card: Card) -> str:
    ride = '{"PULocationID": 10, "DOLocationID": 50, "trip_distance": 4.5}'
    return (
        "## Use\n\n"
        "```python\nimport mlflow\n\n"
        f'model = mlflow.pyfunc.load_model("models:/{card["name"]}/{card["version"]}")\n'
        f"print(model.predict([{ride}]))\n```\n\n"
        "`model.bin` is a pickle of plain values that names no class; its SHA-256 is "
        f"`{card['model_sha256']}`, and is checked before it is read."
    )


def _results(card: Card) -> str:
    rows = [
        [asked, *(_number(card["metrics"][key].get(metric)) for metric in METRICS)]
        for key, asked in ASKED.items()
        if key in card["metrics"]
    ]
    names = ["", *(name for _, name in METRICS.values())]
    return f"## Results on {card['val_data']}\n\n{_table(names, rows)}"


def _segments(card: Card) -> str:
    segments = card["metrics"].get("with_distance", {}).get("segments", {})
    rows = [
        [name, str(scores.get("rows", "")), *(_number(scores.get(m)) for m in ("mae", "coverage"))]
        for name, scores in segments.items()
    ]
    names = ["rides", "number", METRICS["mae"][1], METRICS["coverage"][1]]
    return f"### Where it is better and worse\n\n{_table(names, rows)}" if rows else ""


def _learned(card: Card) -> str:
    rows = [
        [role, month["month"], month["file"], str(month["rows_read"]), str(month["rows_kept"]),
         ", ".join(f"{why} {n}" for why, n in month["reasons"].items()), f"`{month['sha256']}`"]
        for role, months in card["months"].items() for month in months
    ]  # fmt: skip
    names = ["for", "month", "file", "rows", "kept", "left out", "SHA-256"]
    libraries = ", ".join(f"{name} {version}" for name, version in card["libraries"].items())
    return (
        f"## What it learned from\n\n{_table(names, rows)}\n\n"
        f"Made at {card['created']} by run `{card['run_id']}`, commit `{card['git_commit']}`, "
        f"with {libraries}. No fare, no drop-off time and nothing else that is known only after "
        "the ride went in."
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ref(card: Card) -> str:
    return f"{card['name']}:{card['version']}"


def _is_sample(card: Card) -> bool:
    return bool(card["data_source"] == "sample")
