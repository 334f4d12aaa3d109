"""The Open Inference Protocol: what its clients send is answered as /invocations does."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from service_samples import make_card

MODEL = "/v2/models/green-duration"
FRAME = {
    "PULocationID": [74, 41, 75],
    "DOLocationID": [42, 138, 166],
    "trip_distance": [4.5, None, 0.25],
    "pickup_datetime": ["2021-02-15T08:30:00", "2021-02-16T18:00", "2021-02-20T02:15:10"],
    "ride_id": ["a", "b", "c"],
}
KINDS = {"PULocationID": "INT64", "DOLocationID": "INT32", "trip_distance": "FP64",
         "pickup_datetime": "BYTES", "ride_id": "BYTES"}  # fmt: skip
OUTPUTS = ["duration", "p10", "p50", "p90", "support", "used_distance", "model", "arm",
           "prediction_id", "traffic", "logged"]  # fmt: skip


def tensor(name, values, datatype=None, **other):
    return {"name": name, "shape": [len(values)], "datatype": datatype or KINDS.get(name, "INT64"),
            "data": values, **other}  # fmt: skip


def tensors(frame=FRAME):
    return [tensor(name, values) for name, values in frame.items()]


def infer(client, inputs, path=f"{MODEL}/infer", **other):
    return client.post(path, json={"inputs": inputs, **other})


def columns(answer):
    return {output["name"]: output["data"] for output in answer.json["outputs"]}


@pytest.fixture
def expected(client):
    """What /predict says of the same rides."""
    rides = [dict(zip(FRAME, row, strict=True)) for row in zip(*FRAME.values(), strict=True)]
    return client.post("/predict", json=rides).json


def test_rides_are_answered_and_logged_as_by_predict(client, log, expected):
    answer = infer(client, tensors(), id="mine")
    assert (answer.json["model_name"], answer.json["model_version"], answer.json["id"]) == (
        "green-duration", "1", "mine",
    )  # fmt: skip
    assert [(one["name"], one["datatype"], one["shape"]) for one in answer.json["outputs"]] == [
        (one["name"], one["datatype"], [3])
        for one in client.get(MODEL).json["outputs"]
    ]  # fmt: skip
    found = columns(answer)
    assert list(found) == OUTPUTS
    for name in ("duration", "support", "model", "arm", "used_distance"):
        assert found[name] == [one[name] for one in expected]
    for name in ("p10", "p50", "p90"):
        assert found[name] == [one["interval"][name] for one in expected]
    assert (found["logged"], found["traffic"]) == ([True] * 3, [1.0] * 3)
    rows = {row["prediction_id"]: row for row in log.find_many(found["prediction_id"])}
    rows = [rows[prediction_id] for prediction_id in found["prediction_id"]]
    assert [row["ride_id"] for row in rows] == FRAME["ride_id"]
    assert [row["trip_distance"] for row in rows] == FRAME["trip_distance"]
    assert [row["DOLocationID"] for row in rows] == FRAME["DOLocationID"]
    assert [row["pickup_at"] for row in rows] == [
        "2021-02-15T08:30:00", "2021-02-16T18:00:00", "2021-02-20T02:15:10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        lambda one: {**one, "shape": [3, 1]},
        lambda one: {**one, "shape": [3, 1], "data": [[value] for value in one["data"]]},
        lambda one: {**one, "name": f" {one['name'].upper()} "},
        lambda one: {**one, "datatype": "FP32"} if "Location" in one["name"] else one,
        lambda one: {**one, "parameters": {"content_type": "np"}},
    ],
)
def test_other_forms_of_the_same_mean_the_same(client, expected, change):
    found = columns(infer(client, [change(one) for one in tensors()]))
    assert found["duration"] == [one["duration"] for one in expected]


def test_outputs_come_as_asked(client):
    answer = infer(client, tensors(), outputs=[{"name": "p90"}, {"name": "duration"}])
    assert list(columns(answer)) == ["p90", "duration"]
    assert "id" not in answer.json


def test_other_tensors_are_named(client):
    answer = infer(client, [*tensors(), tensor("fare", [1, 2, 3]), tensor("tip", [0, 0, 0])])
    assert answer.json["parameters"] == {"ignored": "fare, tip"}
    assert "parameters" not in infer(client, tensors()).json


@pytest.mark.parametrize("word", ["", " ", "null", "NaN"])
def test_empty_texts_are_null(client, log, word):
    frame = {**FRAME, "pickup_datetime": [word] * 3, "ride_id": [word] * 3}
    ids = columns(infer(client, tensors(frame)))["prediction_id"]
    assert {row["ride_id"] for row in log.find_many(ids)} == {None}
    assert all(row["pickup_at"] > "2026" for row in log.find_many(ids))


def test_no_rides_get_no_answers(client):
    answer = infer(client, tensors({name: [] for name in FRAME}))
    assert {tuple(one["data"]) for one in answer.json["outputs"]} == {()}


ZONES = tensors({name: FRAME[name] for name in ("PULocationID", "DOLocationID")})


def changed(**changes):
    return [{**ZONES[0], **changes}, ZONES[1]]


def without(name):
    return [{key: value for key, value in ZONES[0].items() if key != name}, ZONES[1]]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (5, "no inference request: Expected `array`, got `int` - at `$.inputs`"),
        ([], "PULocationID is missing; expected"),
        (ZONES[1:], "PULocationID is missing; expected"),
        ([*ZONES, tensor("pulocationid", [1, 2, 3])], "PULocationID comes 2 times"),
        (without("name"), "missing required field `name`"),
        (without("shape"), "missing required field `shape`"),
        (without("data"), "the tensor 'PULocationID': neither data nor binary_data_size"),
        (changed(datatype="INT7"), "Invalid enum value 'INT7' - at `$.inputs[0].datatype`"),
        (changed(shape=[]), "its shape is []; [n] is expected"),
        (changed(shape=[-1]), "its shape is [-1]; [n] is expected"),
        (changed(shape=[1, 3]), "its shape is [1, 3]; [n] is expected"),
        (changed(shape=[3, 1, 1]), "its shape is [3, 1, 1]; [n] is expected"),
        (changed(shape=[2]), "3 elements came for the shape [2]"),
        (changed(shape=[3], data=[[74], [41], [75]]), "an array of 1 is no INT64"),
        (changed(shape=[3, 1], data=[[74], [41], 75]), "its rows are not of the shape [3, 1]"),
        (changed(shape=[3, 1], data=[[74, 1], [41], [75]]), "its rows are not of the shape [3, 1]"),
        (changed(shape=[2], data=[74, 41]), "the tensors have [2, 3] elements, not one n"),
        (changed(data=[74, "41", 75]), 'element 1: the tensor \'PULocationID\': "41" is no INT64'),
        (changed(data=[74, True, 75]), "element 1: the tensor 'PULocationID': true is no INT64"),
        (changed(data=[74, 41.5, 75]), "element 1: the tensor 'PULocationID': 41.5 is no INT64"),
        (changed(data=[True] * 3, datatype="BOOL"), "element 0: PULocationID is true; it must be"),
        (changed(data=["74"] * 3, datatype="BYTES"), 'element 0: PULocationID is "74"; it must'),
        (changed(data=[74, 300, 75]), "element 1: PULocationID is 300; it must be a TLC taxi zone"),
        (changed(data=[74, None, 75]), "element 1: PULocationID is null; it must be"),
        ([*ZONES, tensor("trip_distance", [1.5, -2.0, 0.0])], "element 1: trip_distance is -2.0"),
        ([*ZONES, tensor("trip_distance", [5, 5, 5], parameters={"binary_data_size": 24})],
         "binary_data_size is 24; 0 bytes are left"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_protocol_is_refused_in_its_form(client, inputs, said):
    answer = infer(client, inputs)
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]
    assert said in answer.json["error"]


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda c: c.get("/v2/models/yellow-duration"), 404),
        (lambda c: c.get(f"{MODEL}/versions/2"), 404),
        (lambda c: infer(c, tensors(), f"{MODEL}/versions/2/infer"), 404),
        (lambda c: infer(c, tensors(), "/v2/models/nobody/infer"), 404),
        (lambda c: c.get(f"{MODEL}/versions/2/ready"), 404),
        (lambda c: c.get("/v2/models/nobody/ready"), 404),
        (lambda c: c.get("/v2/nothing"), 404),
        (lambda c: c.get(f"{MODEL}/infer"), 405),
        (lambda c: infer(c, tensors(), id=5), 400),
        (lambda c: infer(c, tensors(), outputs=[{"name": "minutes"}]), 400),
        (lambda c: c.post(f"{MODEL}/infer", data="{", content_type="application/json"), 400),
        (lambda c: c.post(f"{MODEL}/infer", data="{}", content_type="text/csv"), 415),
        (lambda c: c.post(f"{MODEL}/infer", data="{}", content_type="application/octet-stream"),
         415),
    ],
)  # fmt: skip
def test_all_errors_have_the_protocols_form(client, ask, status):
    answer = ask(client)
    assert answer.status_code == status
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)


def test_limits_and_keys_are_those_of_the_others(make_app, models):
    model = (models[1], make_card(1, "LR"))
    few = make_app({"MAX_RIDES": 2}, model=model).test_client()
    answer = infer(few, tensors())
    assert (answer.status_code, answer.json) == (
        413, {"error": "3 rides in one request; at most 2 are allowed"},
    )  # fmt: skip
    keyed = make_app({"API_KEYS": ("secret",)}, model=model).test_client()
    for path in ("/v2", MODEL, f"{MODEL}/versions/1"):
        assert keyed.get(path).status_code == 401
        assert keyed.get(path, headers={"X-API-Key": "secret"}).status_code == 200
    assert infer(keyed, tensors()).status_code == 401
    for path in ("/v2/health/live", "/v2/health/ready", f"{MODEL}/ready"):
        assert keyed.get(path).status_code == 200


def test_health_and_metadata(client, make_app):
    assert client.get("/v2/health/live").json == {"live": True}
    assert client.get("/v2/health/ready").json == {"ready": True}
    for path in (MODEL, f"{MODEL}/versions/1"):
        assert client.get(f"{path}/ready").json == {"ready": True, "name": "green-duration"}
        found = client.get(path).json
        assert (found["name"], found["versions"]) == ("green-duration", ["1"])
        assert [one["name"] for one in found["inputs"]] == list(FRAME)
        assert [one["name"] for one in found["outputs"]] == OUTPUTS
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data"]
    empty = make_app().test_client()
    assert empty.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", f"{MODEL}/ready", MODEL):
        assert empty.get(path).status_code == 503


def test_a_log_that_cannot_be_written_is_no_readiness(client, log, monkeypatch):
    from taxi_duration.errors import LogError

    def full():
        raise LogError("disk full")

    monkeypatch.setattr(log, "check_writable", full)
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.json) == (503, {"ready": False})


def texts(values):
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, values))


def as_bytes(frame):
    """The JSON of tensors and the bytes behind it."""
    inputs, parts = [], []
    for name, values in frame.items():
        dtype = {"INT64": "<i8", "INT32": "<i4", "FP64": "<f8"}.get(KINDS[name])
        part = np.array(values, dtype).tobytes() if dtype else texts(values)
        inputs.append({"name": name, "shape": [len(values)], "datatype": KINDS[name],
                       "parameters": {"binary_data_size": len(part)}})  # fmt: skip
        parts.append(part)
    return inputs, b"".join(parts)


def post_bytes(client, inputs, binary, size=None, **other):
    text = json.dumps({"inputs": inputs, **other}).encode()
    length = str(len(text)) if size is None else size
    headers = {"Inference-Header-Content-Length": length}
    return client.post(f"{MODEL}/infer", data=text + binary, headers=headers)


def test_bytes_come_and_go_as_triton_sends_them(client, expected):
    inputs, binary = as_bytes(FRAME)
    outputs = [{"name": "duration", "parameters": {"binary_data": True}}, {"name": "support"},
               {"name": "model", "parameters": {"binary_data": True}}]  # fmt: skip
    answer = post_bytes(client, inputs, binary, outputs=outputs)
    size = int(answer.headers["Inference-Header-Content-Length"])
    told = json.loads(answer.data[:size])
    minutes, models = answer.data[size : size + 24], answer.data[size + 24 :]
    assert [one.get("parameters") for one in told["outputs"]] == [
        {"binary_data_size": 24}, None, {"binary_data_size": len(models)},
    ]  # fmt: skip
    assert np.frombuffer(minutes, "<f8").tolist() == [one["duration"] for one in expected]
    assert models == texts(["green-duration:1"] * 3)
    assert told["outputs"][1]["data"] == [one["support"] for one in expected]


SIZED = {"PULocationID": [74], "DOLocationID": [42], "ride_id": ["ab"]}


@pytest.mark.parametrize(
    ("binary", "size", "said"),
    [
        (lambda b: b[:-1], None, "binary_data_size is 6; 5 bytes are left"),
        (lambda b: b + b"x", None, "1 bytes behind the JSON belong to no tensor"),
        (lambda b: b, "-1", "Inference-Header-Content-Length is '-1'"),
        (lambda b: b, "9999999", "Inference-Header-Content-Length is '9999999'"),
        (lambda b: b, "٣", "Inference-Header-Content-Length is "),
        (lambda b: b[:-6] + b"\3\0\0\0ab", None, "its bytes are not 1 texts"),
        (lambda b: b[:-6] + b"\1\0\0\0ab", None, "its bytes are not 1 texts"),
        (lambda b: b[:-6] + b"\2\0\0\0\xff\xfe", None, "no UTF-8"),
        (lambda b: b"\0" * 8 + b[8:], None, "element 0: PULocationID is 0; it must be"),
    ],
)
def test_bytes_that_are_not_the_tensors_are_refused(client, binary, size, said):
    inputs, whole = as_bytes(SIZED)
    answer = post_bytes(client, inputs, binary(whole), None if size is None else size)
    assert answer.status_code == 400
    assert said in answer.json["error"]


def test_a_number_of_another_size_is_refused(client):
    inputs, binary = as_bytes(SIZED)
    inputs[1]["datatype"] = "INT64"
    answer = post_bytes(client, inputs, binary)
    assert "4 bytes came for the shape [1]" in answer.json["error"]


@pytest.fixture
def tested(make_app, registered):
    """A client while version 2 has half of the rides."""
    from taxi_duration.live.deployment import deploy_champion, set_challenger

    deploy_champion(registered[1], "first")
    set_challenger(registered[2], "test", ab_share=0.5, shadow=True)
    return make_app().test_client()


def test_a_named_version_answers_all_and_else_the_arms_do(tested, log):
    many = {"PULocationID": [74] * 40, "DOLocationID": [42] * 40}
    assert tested.get(MODEL).json["versions"] == ["1", "2"]
    both = infer(tested, tensors(many))
    assert set(columns(both)["model"]) == {"green-duration:1", "green-duration:2"}
    assert "model_version" not in both.json
    for version, arm in (("1", "champion"), ("2", "challenger")):
        answer = infer(tested, tensors(many), f"{MODEL}/versions/{version}/infer")
        assert answer.json["model_version"] == version
        found = columns(answer)
        assert (set(found["model"]), set(found["arm"])) == ({f"green-duration:{version}"}, {arm})
        row = log.find(found["prediction_id"][0])
        assert row["shadow_model"] == f"green-duration:{3 - int(version)}"


def test_a_shadow_answers_nobody(make_app, registered):
    from taxi_duration.live.deployment import deploy_champion, set_challenger

    deploy_champion(registered[1], "first")
    set_challenger(registered[2], "test", shadow=True)
    client = make_app().test_client()
    assert client.get(MODEL).json["versions"] == ["1"]
    assert infer(client, tensors(), f"{MODEL}/versions/2/infer").status_code == 404
    assert client.get(f"{MODEL}/versions/2/ready").status_code == 404


# --- a client of others -------------------------------------------------------------------------


@pytest.fixture
def triton(served):
    """Triton's client of a running service."""
    http = pytest.importorskip("tritonclient.http", reason="Triton's client is for Linux alone")
    client = http.InferenceServerClient(f"127.0.0.1:{served().port}")
    yield client
    client.close()


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_is_answered(triton, binary):
    import tritonclient.http as http

    arrays = {"PULocationID": np.array([74, 41], "int32"), "DOLocationID": np.array([42, 138]),
              "trip_distance": np.array([4.5, np.nan if binary else 2.0], "float32"),
              "pickup_datetime": np.array(["2021-02-15T08:30:00"] * 2, object)}  # fmt: skip
    inputs = []
    for name, array in arrays.items():
        kind = {"i4": "INT32", "i8": "INT64", "f4": "FP32"}.get(array.dtype.str[1:], "BYTES")
        inputs.append(http.InferInput(name, array.shape, kind))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    outputs = [http.InferRequestedOutput(n, binary_data=binary) for n in ("duration", "model")]
    for asked in (outputs, None):
        result = triton.infer("green-duration", inputs, outputs=asked, request_id="7",
                              headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})  # fmt: skip
        assert result.get_response()["id"] == "7"
        assert result.as_numpy("duration").shape == (2,)
        models = [m.decode() if isinstance(m, bytes) else m for m in result.as_numpy("model")]
        assert models == ["green-duration:1"] * 2


def test_tritons_client_reads_health_metadata_and_errors(triton):
    import tritonclient.http as http
    from tritonclient.utils import InferenceServerException

    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("green-duration")
    assert triton.is_model_ready("green-duration", "1")
    assert not triton.is_model_ready("green-duration", "9")
    assert triton.get_server_metadata()["name"] == "taxi-duration"
    assert triton.get_model_metadata("green-duration", "1")["versions"] == ["1"]
    zone = http.InferInput("PULocationID", [1], "INT64")
    zone.set_data_from_numpy(np.array([300]))
    with pytest.raises(InferenceServerException, match="DOLocationID is missing"):
        triton.infer("green-duration", [zone])


def test_the_sample_of_the_docs_is_answered(client):
    api = client.get("/openapi.json").json
    post = api["paths"]["/v2/models/{name}/infer"]["post"]
    example = post["requestBody"]["content"]["application/json"]["example"]
    answer = client.post(f"{MODEL}/infer", json=example)
    ride = {one["name"]: one["data"][0] for one in example["inputs"]}
    assert {"PULocationID", "DOLocationID"} <= ride.keys()
    assert columns(answer)["duration"] == [client.post("/predict", json=ride).json["duration"]]
