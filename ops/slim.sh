#!/bin/sh
# Takes out of the workshop's packages what nobody asks for in it, then compiles those modules that its
# commands load: sh ops/slim.sh FOLDER, the folder that has them. ops/workshop.Dockerfile runs it, with
# serve/system_libraries.sh beside it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$1"

# Tests; what is needed to build against a library, or to develop it; other services of AWS than S3 and
# who lets in to it; other languages of pages and messages that are English; a second copy of JupyterLab's
# page, and widgets of the notebook before it; hints for other people's packages; the server of the other
# image; a cloud that MLflow can talk to, its prices of language models, and Docker's client; what Dask's
# dashboard looks like.
find . -type d -name tests -prune -exec rm -rf {} +
(cd pyarrow && rm -rf include src ./*flight* ./*_cpp_tests*)
(cd botocore/data && find . -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' \
  ! -name signin -exec rm -rf {} +)
find babel/locale-data -type f -name '*.dat' ! -name 'en*' ! -name root.dat -delete
rm -rf jupyterlab/galata jupyterlab/static matplotlib/mpl-data/sample_data \
  jedi/third_party/django-stubs jedi/third_party/typeshed/stubs jupyter_builder/yarn.js granian \
  apprise/i18n databricks/sdk mlflow/utils/model_catalog distributed/http/static docker sklearn/datasets/images ./*.dist-info/sboms \
  widgetsnbextension/static ../../../share/jupyter/nbextensions
# Fonts in the two forms that no browser has asked for since 2012.
find . ../../../share -type f \( -name '*.eot' -o -name '*.svg' -exec grep -q '<font ' {} \; \) -exec rm {} +
# Pictures in AVIF and WebP: Pillow does without. Time zones that the system has.
rm -rf PIL/_avif*.so PIL/_webp*.so pillow.libs/libavif* pillow.libs/libwebp* pillow.libs/libsharpyuv*
[ ! -e /usr/share/zoneinfo/America/New_York ] || rm -rf tzdata
# What C was made from (our own is yet to be made, of Cython's and numpy's), and maps for debuggers of pages.
find . ../../../share \( -path ./Cython -o -path ./numpy \) -prune -o -type f \( -name '*.c' -o -name '*.cpp' \
  -o -name '*.h' -o -name '*.hpp' -o -name '*.p[xy]x' -o -name '*.px[di]' -o -name '*.map' \) -exec rm {} +

# Libraries that are there twice.
sh "$here/system_libraries.sh" .
for lib in pyarrow/*.so.*.*.*; do
  for name in "${lib%.*.*}" "${lib%.so.*}.so"; do ln -sf "${lib#*/}" "$name"; done
done
for lib in scipy.libs/*; do
  twin=numpy.libs/${lib#*/}
  if cmp -s "$lib" "$twin"; then ln -sf "../$twin" "$lib"; fi
done

# Symbols that only a debugger reads. Libraries in *.libs were patched after they were linked, and `strip`
# would break them.
find . -type d -name '*.libs' -prune -o -type f -name '*.so*' -exec strip --strip-unneeded {} +

# Bytecode of what is loaded: half of all. The rest is compiled by whoever asks for it, each time.
unset PYTHONDONTWRITEBYTECODE
find . -name '*.pyc' -delete
MPLBACKEND=agg python - <<'MODULES'
import importlib

for module in """
IPython.display alembic.util apprise arro3.io boto3 dask.array debugpy distributed.cli.dask_scheduler
distributed.cli.dask_worker distributed.nanny fsspec.callbacks ipykernel.kernelapp ipywidgets joblib
jupyterlab.labapp matplotlib.pyplot mlflow.cli mlflow.data.http_dataset_source mlflow.pyfunc mlflow.server
mlflow.server.fastapi_app mlflow.store.model_registry.sqlalchemy_store
mlflow.store.tracking.sqlalchemy_store nacl.signing nbconvert.exporters optuna papermill psycopg
pyarrow.csv pyarrow.dataset pyarrow.parquet rich.table s3fs scipy.stats seaborn sklearn.ensemble
sklearn.feature_extraction sklearn.linear_model tenacity uvicorn.main xgboost.dask
""".split():
    importlib.import_module(module)
MODULES
