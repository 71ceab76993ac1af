"""Fixtures of the map's tests."""

import importlib
import random
import sys

import pytest

from tests.mapstore import variants

if variants.EXTRA:  # make sanitize: let `import mapstore` find the instrumented build
    sys.modules["mapstore._map"] = variants.load("normal")


@pytest.fixture
def rng() -> random.Random:
    """Random numbers, the same in every run."""
    return random.Random(20240)


@pytest.fixture(params=["normal", "tiny"])
def build(request):
    """The module as it is shipped, then one with buckets of 2, chunks of 4 buckets, a ring of 4."""
    if request.param == "tiny" or variants.EXTRA:
        return variants.load(request.param)
    return importlib.import_module("mapstore._map")


@pytest.fixture
def tiny():
    """The build with tiny constants; it can also be told to fail an allocation."""
    return variants.load("tiny")
