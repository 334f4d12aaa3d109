"""The linear-model app that a follower of the course writes: no checks, no log, no interval."""

import os
import pickle
from pathlib import Path

from flask import Flask, jsonify, request

vectorizer, model = pickle.loads(Path(os.environ["COURSE_MODEL"]).read_bytes())
app = Flask("duration-prediction")


def prepare_features(ride):
    return {
        "PU_DO": f"{ride['PULocationID']}_{ride['DOLocationID']}",
        "trip_distance": ride["trip_distance"],
    }


@app.post("/predict")
def predict():
    features = prepare_features(request.get_json())
    minutes = model.predict(vectorizer.transform(features))
    return jsonify({"duration": float(minutes[0])})
