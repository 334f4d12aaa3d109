# The service alone: no pandas, scikit-learn, XGBoost or MLflow.
#   docker build -t taxi-duration .                                  the deployed champion baked in
#   docker build -t taxi-duration --build-arg MODEL=green-duration:7 .          another version
#   docker run -p 9696:9696 -v taxi-live:/data taxi-duration
#   docker run -p 9696:9696 -v $PWD/models:/models:ro -v $PWD/deployment:/deployment:ro \
#     -v taxi-live:/data --read-only --tmpfs /tmp taxi-duration      follows what is deployed
FROM python:3.11-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && { test -e "$(python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" \
      || apt-get install -y --no-install-recommends python3-dev; }
WORKDIR /build
COPY serve/requirements.txt serve/requirements-build.txt serve/
# Packages for the image go to one folder, tools for the build to another.
RUN python -m venv /opt/tools \
 && /opt/tools/bin/pip install -q --no-cache-dir --require-hashes -r serve/requirements-build.txt \
 && /opt/tools/bin/pip install -q --no-cache-dir --no-compile --require-hashes \
      --target /opt/site -r serve/requirements.txt
COPY pyproject.toml setup.py README.md ./
COPY taxi_duration/*.py taxi_duration/
COPY taxi_duration/domain taxi_duration/domain
COPY taxi_duration/model taxi_duration/model
COPY taxi_duration/live taxi_duration/live
RUN /opt/tools/bin/pip install -q --no-cache-dir --no-compile --no-deps --no-build-isolation \
      --target /opt/site . \
 && test -n "$(find /opt/site/taxi_duration -name '_walker*.so')"
COPY serve /app/serve
RUN sh /app/serve/slim.sh /opt/site \
 && python -m compileall -q -j 0 /opt/site/taxi_duration /app \
 && PYTHONPATH=/opt/site:/app python -c 'import serve.server.processes, taxi_duration.live.log_tables, psycopg, nacl.signing'

FROM build AS model
ARG MODEL=champion
COPY pyproject.toml model[s] /context/models/
COPY pyproject.toml deploymen[t] /context/deployment/
RUN cd /app && PYTHONPATH=/opt/site python -m serve.bake "$MODEL" /context /baked

FROM python:3.11-slim
ENV PYTHONPATH=/opt/site \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    HOST=0.0.0.0 \
    TAXI_HOME=/data \
    DATA_DIR=/data \
    MODELS_DIR=/models \
    DEPLOYMENT_DIR=/deployment
COPY --from=build /opt/site /opt/site
COPY --from=build /app /app
COPY --from=model /baked /models
RUN mkdir -p /data /deployment && chown 10001:10001 /data
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 9696
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-c", \
  "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '9696') + '/health', timeout=2)"]
CMD ["python", "-m", "serve"]
