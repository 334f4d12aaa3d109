"""GET /model: the cards of champion and challenger."""

from __future__ import annotations

from service_samples import make_card

from taxi_duration.live.deployment import deploy_champion, set_challenger


def test_card_of_the_champion_is_shown(client):
    answer = client.get("/model").json
    assert answer["model"] == "green-duration:1"
    assert answer["champion"]["data_source"] == "sample"
    assert (answer["challenger"], answer["ab_share"], answer["shadow"]) == (None, 0.0, False)


def test_card_of_the_challenger_is_shown_too(registered, make_app):
    deploy_champion(registered[1], "first")
    set_challenger(registered[2], "test", ab_share=0.25, shadow=True)
    answer = make_app().test_client().get("/model").json
    assert answer["challenger"]["version"] == 2
    assert (answer["ab_share"], answer["shadow"], answer["baking"]) == (0.25, True, False)


def test_champion_that_bakes_is_told(registered, make_app):
    deploy_champion(registered[1], "first")
    deploy_champion(registered[2], "better", bake=True)
    answer = make_app().test_client().get("/model").json
    assert (answer["model"], answer["challenger"]["version"]) == ("green-duration:2", 1)
    assert (answer["baking"], answer["shadow"], answer["ab_share"]) == (True, True, 0.0)


def test_folders_of_the_training_machine_are_not_shown(make_app, models):
    card = make_card(1, "LR")
    lineage = card["months"]["train"][0]
    for url, shown in (
        ("/home/somebody/tlc data/green_2021-01.parquet", "green_2021-01.parquet"),
        ("file:///srv/tlc/green_2021-01.parquet", "green_2021-01.parquet"),
        (
            "https://host/trip-data/green_2021-01.parquet",
            "https://host/trip-data/green_2021-01.parquet",
        ),
        ("s3://bucket/trip-data/green.parquet", "s3://bucket/trip-data/green.parquet"),
        (None, None),
    ):
        lineage["url"] = url
        app = make_app(model=(models[1], {**card, "note": [f"read from {url} once"]}))
        answer = app.test_client().get("/model").json["champion"]
        assert answer["months"]["train"][0] == {**lineage, "url": shown}
        assert "/home" not in answer["note"][0]
        assert "/srv" not in answer["note"][0]


def test_folders_of_the_server_are_not_shown_in_what_is_wrong(home, client, app):
    app.extensions["taxi"].holder._problem = "cannot be read: [Errno 13] denied: '/srv/x/card.json'"
    for path in ("/model", "/ready", "/monitor/data"):
        text = client.get(path).text
        assert "denied: 'card.json'" in text
        assert "/srv" not in text


def test_without_a_model_it_says_how_to_get_one(home, make_app):
    answer = make_app().test_client().get("/model")
    assert answer.status_code == 503
    assert answer.json["error"]["code"] == "no_model"
    assert "make run" in answer.json["error"]["message"]
