"""Builds the compiled tree walker; everything else is in pyproject.toml.

The extension is optional: without a C compiler the package installs all the same and walks
its trees with numpy, with equal answers and slower single rides.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension(
                "taxi_duration.model._walker", ["taxi_duration/model/_walker.pyx"], optional=True
            )
        ],
        language_level=3,
    )
)
