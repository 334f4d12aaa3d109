# Notebooks, pipeline, JupyterLab and the MLflow server: all that the service's image leaves out.
FROM python:3.11-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc git libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 taxi \
 && mkdir -p /models /deployment /data /artifacts /home/taxi/runs \
 && chown taxi:taxi /models /deployment /data /artifacts /home/taxi/runs
WORKDIR /project
COPY requirements.txt ./
RUN pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml setup.py README.md pipeline.py ./
COPY taxi_duration taxi_duration
COPY notebooks notebooks
COPY ops/auto.sh ops/auto.sh
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . && chown -R taxi:taxi notebooks
ENV TAXI_HOME=/home/taxi \
    HOME=/home/taxi \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true
USER 10001:10001
CMD ["python", "pipeline.py", "--help"]
