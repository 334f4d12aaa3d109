import pandas as pd
import pytest

from taxi_duration.chain.scoring import score_months
from taxi_duration.data.prepared import concat_trips, prepare_months
from taxi_duration.domain.months import parse_months
from taxi_duration.errors import BundleError, NotFoundError, TagError
from taxi_duration.model.bundle import load_card, write_card

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


def test_every_trip_of_every_month_is_answered_beside_what_it_took(moved_home):
    result = score_months("2021-02:2021-03")
    trips = concat_trips(prepare_months("green", parse_months("2021-02:2021-03")))
    scored = pd.read_parquet(result.path)
    assert result.rows == len(scored) == len(trips)
    assert scored["duration"].equals(trips["duration"])
    error = scored["predicted"].astype("float64") - scored["duration"]
    assert result.metrics["rmse"] == pytest.approx((error**2).mean() ** 0.5)


def test_file_is_named_by_service_months_and_version(moved_home):
    path = score_months("2021-02:2021-03").path
    assert path.parent == moved_home / "data" / "scored"
    assert path.name == "green_2021-02_2021-03-by-green-duration-1.parquet"


def test_scoring_the_validation_month_gives_the_cards_error(moved_home):
    card = load_card(moved_home / "models" / "green-duration" / "1")
    result = score_months("2021-02", reference="green-duration:champion")
    assert result.metrics["rmse"] == pytest.approx(card["metrics"]["with_distance"]["rmse"])


def test_another_version_of_what_decides_figures_is_warned_of(moved_home, caplog):
    score_months("2021-03")
    assert not [text for text in caplog.messages if "made with" in text]
    folder = moved_home / "models" / "green-duration" / "1"
    card = load_card(folder)
    write_card(folder, {**card, "libraries": {**card["libraries"], "xgboost": "1.0"}}, None)
    score_months("2021-03")
    (said,) = (text for text in caplog.messages if "made with" in text)
    assert said.startswith("green-duration:1: it was made with xgboost 1.0; here are xgboost ")


@pytest.mark.parametrize(
    ("data", "reference", "error"),
    [
        ("2013-07", None, TagError),
        ("2021-13", None, TagError),
        ("2021-03", "green-duration:7", NotFoundError),
    ],
)
def test_what_cannot_be_scored_is_refused_and_writes_nothing(moved_home, data, reference, error):
    with pytest.raises(error):
        score_months(data, reference=reference)
    assert not (moved_home / "data" / "scored").exists()


def test_damaged_bundle_is_refused(moved_home):
    path = moved_home / "models" / "green-duration" / "1" / "model.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="damaged or exchanged"):
        score_months("2021-03")
