"""The compiled extensions; everything else about the package is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

setup(
    ext_modules=cythonize(
        [
            Extension("mapstore._map", ["mapstore/_map.pyx"]),
            Extension("cdc.mysql._rows", ["cdc/mysql/_rows.pyx"]),
            Extension("cdc.mysql._events", ["cdc/mysql/_events.pyx"]),
        ],
        language_level=3,
    )
)
