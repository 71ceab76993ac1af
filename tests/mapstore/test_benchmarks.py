"""The benchmarks run, and print the promised figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mapstore import variants

pytestmark = pytest.mark.skipif(bool(variants.EXTRA), reason="figures under a sanitizer mean nothing")
ROOT = Path(__file__).parents[2]


def figures(*arguments):
    """Run a benchmark; returns its JSON, the last line."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=250)
    return json.loads(done.stdout.splitlines()[-1])


def test_map_benchmark_measures_a_dict_too():
    """One part suffices here."""
    report = figures("map", "--only", "single", "--repeats", "1")
    assert {"get", "set"} == set(report["single"]["dict"]) == set(report["single"]["map"])


def test_keyed_hash_defeats_chosen_keys(tmp_path):
    """With the unkeyed hash the chosen keys share a chain; under a secret key they spread like any others."""
    found = figures("probing", "--plot", str(tmp_path))["hostile: slot"]
    assert found["unkeyed"]["linear"] > 50 * found["keyed"]["linear"]
    assert found["map_trusted"]["longest_chain"] > 10 * found["map_siphash"]["longest_chain"]
    assert (tmp_path / "probing.png").stat().st_size > 1000
