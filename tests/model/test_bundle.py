from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from cards import make_card, with_another_trip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taxi_duration.domain.rides import Rides
from taxi_duration.errors import BundleError
from taxi_duration.files import read_json, write_json
from taxi_duration.model import bundle
from taxi_duration.model.bundle import (
    CARD_FILE,
    FORMAT,
    MODEL_FILE,
    load_bundle,
    load_card,
    save_bundle,
    write_card,
)
from taxi_duration.model.plain_pickle import dumps, loads
from taxi_duration.training.kinds import KINDS

KEY = b"a key of ours"


class Payload:
    """A pickle that would run a command when it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_raw_bundle(folder, content: bytes, **changes) -> None:
    """A bundle as a forger would write it: any bytes, with the right digest."""
    (folder / MODEL_FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    write_json(folder / CARD_FILE, {**make_card("LR"), "model_sha256": digest, **changes})


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """A folder with an unsigned bundle of a linear model; not to be changed."""
    folder = tmp_path_factory.mktemp("saved")
    save_bundle(folder, fitted("LR"), make_card("LR"), key=None)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of the bundle, free to change."""
    for name in (MODEL_FILE, CARD_FILE):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    return tmp_path


@pytest.fixture
def never_opened(monkeypatch):
    """Fails the test when the model's bytes are read as a pickle."""

    def refuse(content):
        raise AssertionError("read before the checks were done")

    monkeypatch.setattr(bundle, "loads", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_model_answers_as_the_saved_one(fitted, sample_months, tmp_path, kind):
    model, rides = fitted(kind), Rides.from_frame(sample_months[1])
    card = save_bundle(tmp_path, model, make_card(kind), KEY)
    loaded, loaded_card = load_bundle(tmp_path, KEY)
    assert loaded_card == card
    before, after = model.answer(rides), loaded.answer(rides)
    for name in before.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_equal_models_have_the_same_digest(fitted, saved, tmp_path):
    again = save_bundle(tmp_path, load_bundle(saved)[0], make_card("LR", version=2), KEY)
    assert again["model_sha256"] == load_card(saved)["model_sha256"]
    other = save_bundle(tmp_path, with_another_trip(fitted("LR")), make_card("LR"), KEY)
    assert other["model_sha256"] != again["model_sha256"]


def test_the_saved_bin_is_a_pickle_of_plain_values_to_any_unpickler(saved):
    class NoClass(pickle.Unpickler):
        def find_class(self, module, name):
            raise AssertionError(f"{module}.{name}")

    with (saved / MODEL_FILE).open("rb") as file:
        state = NoClass(file).load()
    assert (state["format"], state["service"], state["model"]["kind"]) == (FORMAT, "green", "LR")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_bit_flipped_anywhere_is_refused_before_it_is_read(saved, tmp_path, place, bit):
    content = bytearray((saved / MODEL_FILE).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (tmp_path / MODEL_FILE).write_bytes(content)
    (tmp_path / CARD_FILE).write_bytes((saved / CARD_FILE).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "loads", lambda content: pytest.fail("was read"))
        with pytest.raises(BundleError, match=r"SHA-256 \w{12}….* damaged or exchanged"):
            load_bundle(tmp_path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=4))
def test_bytes_forged_anywhere_with_the_right_digest_are_refused_or_a_model(
    saved, tmp_path, place, new
):
    content = bytearray((saved / MODEL_FILE).read_bytes())
    at = int(place**4 * len(content))  # most of the opcodes lie at the beginning
    content[at : at + len(new)] = new
    write_raw_bundle(tmp_path, bytes(content))
    try:
        model, _ = load_bundle(tmp_path)
    except BundleError:
        return
    asked = Rides.from_dicts([{"PULocationID": 74, "DOLocationID": 75, "trip_distance": 2.0}])
    assert np.isfinite(model.answer(asked).duration).all()


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_truncated_model_is_refused(copied, never_opened, size):
    path = copied / MODEL_FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(BundleError, match="damaged or exchanged"):
        load_bundle(copied)


# --- a bin that is no model of ours --------------------------------------------------------


def test_payload_with_a_right_digest_is_refused_and_never_runs(tmp_path):
    mark = tmp_path / "it ran"
    write_raw_bundle(tmp_path, pickle.dumps(Payload(f"touch '{mark}'"), 3))
    with pytest.raises(BundleError, match=r"model\.bin is no pickle of plain values: .* GLOBAL"):
        load_bundle(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_bundle_of_the_format_that_named_classes_is_refused_with_what_to_do(
    fitted, tmp_path, protocol
):
    write_raw_bundle(tmp_path, pickle.dumps(fitted("LR"), protocol))
    with pytest.raises(BundleError, match=r"older format.*train the model again: `python pipe"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("number", "remedy"), [(FORMAT - 1, "train the model again"), (FORMAT + 1, "update this ")]
)
def test_bundle_of_another_format_number_says_what_to_do(saved, tmp_path, number, remedy):
    state = loads((saved / MODEL_FILE).read_bytes())
    write_raw_bundle(tmp_path, dumps({**state, "format": number}))
    with pytest.raises(
        BundleError, match=f"format {number}, this version reads {FORMAT}; {remedy}"
    ):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    "value", [{"weights": [1.0]}, [1], None, {"format": True}, {"format": "2"}]
)
def test_pickle_that_is_no_model_is_refused(tmp_path, value):
    write_raw_bundle(tmp_path, dumps(value))
    with pytest.raises(BundleError, match="names no format: it is no model of this project"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("change", [{"more": 1}, {"service": None}])
def test_pickle_with_more_or_less_than_a_model_is_refused(saved, tmp_path, change):
    state = {**loads((saved / MODEL_FILE).read_bytes()), **change}
    state = {name: value for name, value in state.items() if value is not None}
    write_raw_bundle(tmp_path, dumps(state))
    with pytest.raises(BundleError, match="holds more or less than service, created and model"):
        load_bundle(tmp_path)


def test_model_that_answers_nan_is_refused(saved, tmp_path):
    state = loads((saved / MODEL_FILE).read_bytes())
    state["model"]["point"][1]["intercept"] = float("nan")
    write_raw_bundle(tmp_path, dumps(state))
    with pytest.raises(BundleError, match=r"no model that can be used: model\.point\.intercept is"):
        load_bundle(tmp_path)


def test_file_that_is_too_large_is_refused_before_it_is_read_whole(copied, monkeypatch):
    for name, limit in ((MODEL_FILE, "MAX_MODEL_BYTES"), (CARD_FILE, "MAX_CARD_BYTES")):
        size = (copied / name).stat().st_size
        monkeypatch.setattr(bundle, limit, size)
        load_bundle(copied)
        monkeypatch.setattr(bundle, limit, size - 1)
        with pytest.raises(BundleError, match=f"{name} is larger than {size - 1:,} bytes"):
            load_bundle(copied)
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda model: np.random.default_rng(0), "holds a Generator, not a DurationModel"),
        (lambda model: replace(model, parameters={"day": datetime(2021, 1, 1)}), "a datetime"),
        (lambda model: replace(model, pair_trips=model.pair_trips.astype(object)), "of object"),
        (lambda model: replace(model, pair_trips=model.pair_trips * 0), "or none at all"),
        (lambda model: replace(model, kind="RIDGE"), "its model_kind is LR"),
    ],
)
def test_model_that_could_not_be_loaded_again_is_not_saved(fitted, tmp_path, model, message):
    with pytest.raises(BundleError, match=message):
        save_bundle(tmp_path / "new", model(fitted("LR")), make_card("LR"), key=None)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{"created": None}, {"service": "blue"}, {"version": 0}])
def test_card_that_could_not_be_loaded_again_is_not_saved(fitted, tmp_path, change):
    with pytest.raises(BundleError, match=f"card.json has {next(iter(change))} "):
        save_bundle(tmp_path / "new", fitted("LR"), make_card("LR", **change), key=None)
    assert not (tmp_path / "new").exists()


# --- card and bin held against each other --------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_kind", "RIDGE"),
        ("created", "2021-03-01T00:00:01+00:00"),
        ("service", "yellow"),
    ],
)
def test_card_that_says_otherwise_than_the_bin_is_refused(copied, field, value):
    card = {**read_json(copied / CARD_FILE), field: value}
    write_card(copied, {**card, "name": f"{card['service']}-duration"}, KEY)
    message = re.escape(f"card.json is of another model: its {field} is {value}")
    with pytest.raises(BundleError, match=message):
        load_bundle(copied, KEY)


def test_exchanged_cards_are_refused_though_their_digests_were_mended(fitted, tmp_path):
    cards = {
        kind: save_bundle(tmp_path / kind, fitted(kind), make_card(kind), None)
        for kind in ("LR", "RIDGE")
    }
    for kind, other in (("LR", "RIDGE"), ("RIDGE", "LR")):
        digest = cards[kind]["model_sha256"]
        write_card(tmp_path / kind, {**cards[other], "model_sha256": digest}, None)
        with pytest.raises(BundleError, match="is of another model"):
            load_bundle(tmp_path / kind)


def test_bundle_under_another_models_name_is_refused(fitted, saved, tmp_path):
    folder = tmp_path / "green-duration" / "7"
    shutil.copytree(saved, folder)
    load_bundle(folder)
    load_bundle(folder, expected="green-duration:1")
    yellow = make_card("LR", service="yellow", name="yellow-duration", version=3)
    for card in (None, yellow):
        if card:
            save_bundle(folder, fitted("LR"), card, None)
        for load in (load_bundle, load_card):
            with pytest.raises(BundleError, match=r"green-duration/7/card.json is that of \w+"):
                load(folder, expected=bundle.reference_of(folder))


def test_bundle_without_a_number_is_refused_where_one_is_expected(fitted, tmp_path):
    card = {k: v for k, v in make_card("LR").items() if k not in ("name", "version")}
    save_bundle(tmp_path, fitted("LR"), card, None)
    load_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"card\.json has no name"):
        load_bundle(tmp_path, expected="green-duration:1")


# --- signature and card --------------------------------------------------------------------


def test_signed_bundle_loads_with_its_key_and_without_one(copied):
    write_card(copied, read_json(copied / CARD_FILE), KEY)
    assert load_card(copied, KEY) == load_card(copied)
    assert load_bundle(copied, KEY)[1]["name"] == "green-duration"


def test_unsigned_bundle_is_refused_when_there_is_a_key(copied, never_opened):
    with pytest.raises(BundleError, match=r"is not signed; MODEL_SIGNING_KEY asks for one"):
        load_bundle(copied, KEY)


def test_bundle_signed_with_another_key_is_refused(copied, never_opened):
    write_card(copied, read_json(copied / CARD_FILE), b"another key")
    with pytest.raises(BundleError, match="has a wrong signature"):
        load_bundle(copied, KEY)


@pytest.mark.parametrize("change", [{"version": 2}, {"model_sha256": "0" * 64}, {"extra": 1}])
def test_card_changed_after_signing_is_refused(copied, never_opened, change):
    card = write_card(copied, read_json(copied / CARD_FILE), KEY)
    write_json(copied / CARD_FILE, {**card, **change})
    with pytest.raises(BundleError, match="has a wrong signature"):
        load_bundle(copied, KEY)


def test_card_survives_being_written_and_read_when_signed(copied):
    card = {**read_json(copied / CARD_FILE), "seen": datetime(2021, 3, 1), "share": 0.1}
    write_card(copied, card, KEY)
    assert load_card(copied, KEY)["share"] == 0.1


def test_card_without_a_digest_is_refused(copied, never_opened):
    card = read_json(copied / CARD_FILE)
    del card["model_sha256"]
    write_json(copied / CARD_FILE, card)
    with pytest.raises(BundleError, match=r"card.json has no model_sha256"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "card.json cannot be read"),
        ("{", "card.json cannot be read"),
        ("\xff", "card.json cannot be read"),
        ("[" * 100_000, "card.json cannot be read"),
        ("[]", "must hold an object"),
    ],
)
@pytest.mark.parametrize("key", [None, KEY])
def test_card_that_is_no_object_is_refused(copied, content, message, key):
    (copied / CARD_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match="is not signed" if key and content == "[]" else message):
        load_bundle(copied, key)


@pytest.mark.parametrize("name", [MODEL_FILE, CARD_FILE])
def test_missing_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(
        BundleError,
        match=rf"^{copied.parent.name}/{copied.name}/{name} cannot be read: No such file",
    ):
        load_bundle(copied)
