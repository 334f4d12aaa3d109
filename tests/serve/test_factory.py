"""The factory: settings, what can be passed in, errors that tell nothing."""

from __future__ import annotations

import pytest
from service_samples import RIDE, make_card

from serve import create_app
from taxi_duration.errors import BundleError, SettingError


class Silent:
    """A model that answers nothing usable."""

    kind = "LR"

    def answer(self, *_):
        raise RuntimeError("no answer")


def test_apps_share_nothing(make_app, models):
    one, other = (make_app(model=(models[v], make_card(v, "LR"))).test_client() for v in (1, 2))
    assert one.post("/predict", json=RIDE).json["model"] == "green-duration:1"
    assert other.post("/predict", json=RIDE).json["model"] == "green-duration:2"
    assert "taxi_predictions_total{" in one.get("/metrics").text
    assert "green-duration:1" not in other.get("/metrics").text


def test_settings_given_win_over_the_environment(monkeypatch, make_app, models):
    monkeypatch.setenv("MAX_RIDES", "5")
    model = (models[1], make_card(1, "LR"))
    assert make_app(model=model).config["MAX_RIDES"] == 5
    assert make_app({"MAX_RIDES": 7}, model=model).config["MAX_RIDES"] == 7


def test_a_setting_that_is_no_number_is_refused(monkeypatch, home):
    monkeypatch.setenv("MAX_BODY_MB", "plenty")
    with pytest.raises(SettingError, match="MAX_BODY_MB"):
        create_app({"BACKGROUND": False})


def test_a_model_that_does_not_answer_is_refused_when_passed_in(home):
    with pytest.raises(BundleError, match="does not answer"):
        create_app({"BACKGROUND": False}, model=(Silent(), make_card(1, "LR")))


def test_a_failure_of_ours_tells_no_stack_trace(app, client):
    champion = app.extensions["taxi"].holder.serving.champion
    object.__setattr__(champion, "predictor", Silent())
    response = client.post("/predict", json=RIDE)
    assert response.status_code == 500
    assert response.json["error"]["code"] == "internal"
    assert "no answer" not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("path", ["/nowhere", "/predict/1", "/static/nothing.js"])
def test_paths_that_do_not_exist_are_refused_as_json(client, path):
    response = client.get(path)
    assert response.status_code == 404
    assert response.json["error"]["code"] == "not_found"
    assert path in response.json["error"]["message"]


def test_the_service_needs_none_of_the_training_libraries(models):
    """Imported in a process of its own: the container does not have them."""
    import subprocess
    import sys

    banned = "pandas,scipy,sklearn,xgboost,mlflow,pyarrow,matplotlib,papermill,filelock,arro3"
    script = "import sys, serve.app, serve.server.processes, taxi_duration.live.log_tables\n"
    script += f"print([m for m in {banned!r}.split(',') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
