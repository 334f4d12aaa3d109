import pytest

from taxi_duration.chain.run_settings import DEFAULTS, KINDS, check_settings, resolve_settings
from taxi_duration.errors import SettingError, TagError, TaxiError

NO_FLAGS = dict.fromkeys(DEFAULTS)


def test_defaults_are_the_documented_ones():
    settings = resolve_settings(NO_FLAGS, {})
    assert settings.as_parameters() == {
        "TRAIN_DATA": "2021-01", "VAL_DATA": "2021-02", "MODEL": "best", "SERVICE": "green",
    }  # fmt: skip


def test_flag_beats_p_which_beats_the_environment_which_beats_the_default(monkeypatch):
    def model(flag=None, parameter=None):
        parameters = {"MODEL": parameter} if parameter else {}
        return resolve_settings({**NO_FLAGS, "MODEL": flag}, parameters).model

    assert model() == "best"
    monkeypatch.setenv("MODEL", "RF")
    assert model() == "RF"
    assert model(parameter="XGB") == "XGB"
    assert model(flag="LR", parameter="XGB") == "LR"


def test_empty_variable_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("TRAIN_DATA", "")
    assert resolve_settings(NO_FLAGS, {}).train_data == "2021-01"


def test_tags_in_any_form_are_stored_in_one():
    settings = check_settings("Dec 2020:january 2021", "2021/02", "lr", "GREEN")
    assert settings.as_parameters() == {
        "TRAIN_DATA": "2020-12:2021-01", "VAL_DATA": "2021-02", "MODEL": "LR", "SERVICE": "green",
    }  # fmt: skip
    assert [str(month) for month in settings.train_months] == ["2020-12", "2021-01"]
    assert [str(month) for month in settings.val_months] == ["2021-02"]


@pytest.mark.parametrize(("model", "kinds"), [("best", tuple(KINDS)), ("Ridge", ("RIDGE",))])
def test_best_trains_all_kinds_and_a_name_only_its_own(model, kinds):
    assert check_settings("2021-01", "2021-02", model).kinds == kinds


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("TRAIN_DATA", "2021-13", "Jan 2021"),
        ("VAL_DATA", "Feb", "Jan 2021"),
        ("TRAIN_DATA", "2013-07", "start in 2013-08"),
        ("MODEL", "SVM", "LR, LASSO, RIDGE, RF, XGB, best"),
        ("SERVICE", "blue", "green, yellow, fhv, fhvhv"),
    ],
)
@pytest.mark.parametrize("place", ["flag", "-p", "environment"])
def test_bad_value_is_refused_by_name_wherever_it_came_from(
    monkeypatch, place, name, value, allowed
):
    flags, parameters = dict(NO_FLAGS), {}
    if place == "environment":
        monkeypatch.setenv(name, value)
    else:
        (flags if place == "flag" else parameters)[name] = value
    with pytest.raises(TaxiError) as error:
        resolve_settings(flags, parameters)
    message = str(error.value)
    assert name in message and value in message and allowed in message


@pytest.mark.parametrize("validation", ["2021-01", "2020-12", "2021-01:2021-03"])
def test_validation_that_is_not_after_training_is_refused(validation):
    with pytest.raises(TagError, match=r"VAL_DATA .* must come after all of TRAIN_DATA 2021-01"):
        check_settings("2021-01", validation)


def test_parameter_that_the_pipeline_sets_itself_is_refused_instead_of_ignored():
    with pytest.raises(SettingError, match="RUN_DIR is set by the pipeline"):
        resolve_settings(NO_FLAGS, {"RUN_DIR": "elsewhere"})
