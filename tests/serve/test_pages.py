"""GET / and GET /monitor."""

from __future__ import annotations

import pytest
from service_samples import RIDE

from taxi_duration.deployment import deploy_champion, set_challenger


@pytest.mark.parametrize("path", ["/", "/monitor", "/docs"])
def test_pages_carry_headers_that_keep_them_to_themselves(client, path):
    response = client.get(path)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_riders_page_offers_every_zone(client):
    text = client.get("/").text
    assert all(f'<option value="{zone}">' in text for zone in (1, 132, 265))


def test_the_monitor_shows_who_serves_and_how_well(registered, make_app):
    deploy_champion(registered[1], "first <b>model</b>")
    set_challenger(registered[2], "test", ab_share=0.25)
    client = make_app().test_client()
    client.post("/predict", json=RIDE)
    text = client.get("/monitor").text
    assert "green-duration:2" in text
    assert "share 25 %" in text
    assert "first &lt;b&gt;model&lt;/b&gt;" in text


def test_the_monitor_works_with_nothing_deployed(home, make_app):
    assert "No model serves" in make_app().test_client().get("/monitor").text


@pytest.mark.parametrize("path", ["/static/style.css", "/static/ride.js"])
def test_files_of_the_pages_are_served(client, path):
    assert client.get(path).status_code == 200


def test_files_outside_static_are_not_served(client):
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404
