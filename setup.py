"""Builds the compiled tree walker; everything else is in pyproject.toml.

The extension is optional: without a C compiler, or without Python's headers, the package installs
all the same and walks its trees with numpy, with equal answers and slower single rides.
"""

from Cython.Build import cythonize
from setuptools import Extension, setup

walker = Extension("taxi_duration.model._walker", ["taxi_duration/model/_walker.pyx"])
(walker,) = cythonize([walker], language_level=3)
walker.optional = True  # set here, since cythonize makes a new Extension and drops it

setup(ext_modules=[walker])
