"""What the warm process has in memory before anything is forked from it.

Importing this imports all that notebooks and the chain's own work need, and has SQLAlchemy link
MLflow's tables, so that each process that uses MLflow's store does not do it again.
"""

from __future__ import annotations

import gc
from importlib import import_module

from taxi_duration import environment

MODULES = (
    "tqdm.auto",  # before IPython, or it asks for widgets
    "ipykernel.kernelapp",
    "ipykernel.debugger",  # each kernel asks for it
    "pandas",
    "pyarrow.parquet",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "seaborn",
    "mlflow.pyfunc",
    "sklearn.linear_model",
    "sklearn.feature_extraction",
    "taxi_duration.chain.candidates",
    "nbconvert",
)
# Only where MLflow keeps its records in a database of this machine's.
STORE = (
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.store.model_registry.sqlalchemy_workspace_store",
    "mlflow.store.artifact.local_artifact_repo",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
)

# What modules make stays: to look through it again and again takes a fifth of their imports' time.
gc.disable()
for name in MODULES:
    import_module(name)
if not environment.tracking_server():
    for name in STORE:
        import_module(name)
    import_module("sqlalchemy.orm").configure_mappers()
# A kernel looks for "inline" among the backends of all installed packages: they are looked up once.
import_module("matplotlib.backends").backend_registry.list_all()
gc.freeze()  # nor do the forked processes look through it, and so copy its pages
gc.enable()
