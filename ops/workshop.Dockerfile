# Notebooks, pipeline, JupyterLab and the MLflow server: all that the service's image leaves out.
FROM python:3.11-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && { test -e "$(python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" \
      || apt-get install -y --no-install-recommends python3-dev; }
# The base's pip installs into it: a second one would only be carried along.
RUN python -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_PYTHON=/opt/venv/bin/python
COPY ops/requirements.txt ops/slim.sh serve/system_libraries.sh /tmp/
RUN pip install --no-cache-dir --no-compile --no-deps --require-hashes -r /tmp/requirements.txt \
 && sh /tmp/slim.sh /opt/venv/lib/python3*/site-packages
WORKDIR /project
COPY pyproject.toml setup.py README.md pipeline.py ./
COPY taxi_duration taxi_duration
COPY notebooks notebooks
COPY ops/auto.sh ops/auto.sh
# Who compiled the walker goes; a bytecode of pip's own is not worth its size.
RUN export PYTHONDONTWRITEBYTECODE=1 \
 && pip install --no-cache-dir --no-deps --no-build-isolation -e . \
 && pip uninstall --quiet --yes cython setuptools \
 && rm -f taxi_duration/model/_walker.c \
 && python -m compileall -q taxi_duration

FROM python:3.11-slim
RUN useradd --create-home --uid 10001 taxi \
 && mkdir -p /models /deployment /data /artifacts /home/taxi/runs \
 && chown taxi:taxi /models /deployment /data /artifacts /home/taxi/runs
COPY --from=build /opt/venv /opt/venv
COPY --from=build /project /project
WORKDIR /project
RUN chown -R taxi:taxi notebooks
ENV PATH=/opt/venv/bin:$PATH \
    TAXI_HOME=/home/taxi \
    HOME=/home/taxi \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    GIT_PYTHON_REFRESH=quiet
USER 10001:10001
CMD ["python", "pipeline.py", "--help"]
