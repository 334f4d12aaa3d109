import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from s3_server import s3_bucket

from taxi_duration.chain import answered, scoring
from taxi_duration.chain.scoring import score_months
from taxi_duration.data.prepared import prepare_months
from taxi_duration.domain.months import parse_months
from taxi_duration.domain.version import Version
from taxi_duration.errors import BundleError, NotFoundError, SettingError, SourceError, TagError
from taxi_duration.model.bundle import load_card, write_card

pytestmark = pytest.mark.slow  # MLflow alone takes seconds to import


def test_every_trip_of_every_month_is_answered_beside_what_it_took(moved_home):
    result = score_months("2021-02:2021-03")
    months = prepare_months("green", parse_months("2021-02:2021-03"))
    trips = pd.concat([month.trips() for month in months], ignore_index=True)
    scored = pd.read_parquet(result.path)
    assert result.rows == len(scored) == len(trips)
    assert scored["duration"].equals(trips["duration"])
    error = scored["predicted"].astype("float64") - scored["duration"]
    assert result.metrics["rmse"] == pytest.approx((error**2).mean() ** 0.5)


def test_file_is_named_by_service_months_and_version(moved_home):
    path = score_months("2021-02:2021-03").path
    assert path.parent == moved_home / "data" / "scored"
    assert path.name == "green_2021-02_2021-03-by-green-duration-1.parquet"


def test_many_separate_months_are_named_by_the_first_the_last_and_a_digest(moved_home):
    """As texts they would be longer than a file's name may be."""
    version = Version("green-duration", 1, "0" * 64, "tlc")
    odd = parse_months(",".join(f"{year}-{month:02}" for year in range(2014, 2022)
                                for month in (1, 3, 5, 7, 9, 11)))  # fmt: skip
    names = {scoring._default_path("green", some, version, "s3://b/k").name
             for some in (odd, [odd[0], *odd[2:]], odd[:5])}  # fmt: skip
    assert len(names) == 3 and max(map(len, names)) < 150
    assert any("green_2014-01_to_2021-11_48_months_" in name for name in names)


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


def test_file_says_which_model_answered_which_months(moved_home):
    path = score_months("2021-02:2021-03").path
    card = load_card(moved_home / "models" / "green-duration" / "1")
    said = {k.decode(): v.decode() for k, v in pq.read_metadata(path).metadata.items()}
    assert (said["model"], said["model_sha256"]) == ("green-duration:1", card["model_sha256"])
    months = prepare_months("green", parse_months("2021-02:2021-03"))
    assert [(m["month"], m["sha256"]) for m in json.loads(said["months"])] == [
        (str(month.raw.month), month.raw.sha256) for month in months
    ]
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # and nothing is left


@pytest.mark.parametrize("changed", ["month", "model", "code"])
def test_killed_scoring_begins_anew_when_what_it_rests_on_is_another(
    moved_home, monkeypatch, changed
):
    asked, answer = [], answered.answer_group
    monkeypatch.setattr(
        answered, "answer_group", lambda m, part: (asked.append(part.raw.month), answer(m, part))[1]
    )

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as ending:
        ending.setattr(answered, "_name", killed)
        with pytest.raises(KeyboardInterrupt):
            score_months("2021-02:2021-03")
    asked.clear()
    if changed == "month":
        (raw,) = (moved_home / "data").rglob("green_tripdata_2021-03.parquet")
        table = pq.read_table(raw)
        pq.write_table(table.slice(1), raw)
        raw.with_name(raw.name + ".json").unlink(missing_ok=True)
    elif changed == "model":
        monkeypatch.setattr(scoring.Version, "ref", "green-duration:2")
    else:
        monkeypatch.setattr(scoring, "code_digest", lambda shelves: "another")
    score_months("2021-02:2021-03", out=str(_default()))
    assert len(asked) == 2


def _default():
    (folder,) = scoring.environment.data_dir().joinpath("scored").glob(".*.answered")
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".answered"))


@pytest.fixture
def bucket():
    """An S3 server with an empty bucket; yields what lists its keys."""
    with s3_bucket("answers") as keys:
        yield keys


def test_file_is_sent_to_s3_and_stays_nowhere_else(moved_home, bucket):
    here = score_months("2021-03").path
    result = score_months("2021-03", to="s3://answers/by/month.parquet")
    assert result.path == "s3://answers/by/month.parquet"
    assert bucket() == ["by/month.parquet"]
    files, name = scoring.open_source(result.path)
    with files.open(name) as file:
        pd.testing.assert_frame_equal(pd.read_parquet(file), pd.read_parquet(here))
    assert [file.name for file in here.parent.iterdir()] == [here.name]


def test_what_could_not_be_sent_is_sent_without_answering_again(moved_home, bucket, monkeypatch):
    with pytest.raises(SourceError, match="s3://nowhere/a"):
        score_months("2021-03", to="s3://nowhere/a.parquet")
    import boto3

    boto3.client("s3").create_bucket(Bucket="nowhere")
    monkeypatch.setattr(answered, "answer_group", lambda *args: pytest.fail("it was answered"))
    score_months("2021-03", to="s3://nowhere/a.parquet")
    assert not list((moved_home / "data" / "scored").iterdir())


def test_file_goes_to_one_place(moved_home):
    with pytest.raises(SettingError, match="one place"):
        score_months("2021-03", out="a.parquet", to="s3://answers/a.parquet")
