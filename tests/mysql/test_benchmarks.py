"""The benchmarks on a server, with tiny sizes: every peer runs and the figures are present; their values are not judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = {
    "snapshot": {"mysql --quick -N > /dev/null", "PyMySQL SSCursor, counted"},
    "stream": {"mysqlbinlog -v > /dev/null", "mysql-replication, rows counted"},
    "oltp": {"mysqlbinlog -v > /dev/null", "mysql-replication"},
}


@pytest.mark.parametrize("name", PEERS)
def test_benchmark_prints_a_table_and_one_json_object(mysql_server, name):
    """Figures, ratios and noise of our code and each peer, for each table, with the machine's description; the database is dropped
    afterwards.
    """
    sizes = ["--rows", "2000", "--repeats", "2", *([] if name == "snapshot" else ["--slice", "100"])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--json", *sizes],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"CDC_SANDBOX_MYSQL_URL": mysql_server.url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    report = json.loads(last)
    assert report["benchmark"] == name
    assert report["machine"]["server"].startswith("9.")
    assert set(report["tables"]) == {"sbtest", "orders"}
    for table in report["tables"].values():
        assert set(table["ratios"]) == PEERS[name]
        assert set(table["figures"]) == PEERS[name] | {"cdc into a MapStore"}
        assert all(len(figure["runs"]) == 2 and figure["lowest"] > 0 and figure["noise"] >= 0 for figure in table["figures"].values())
        assert all(ratio["median"] > 0 for ratio in table["ratios"].values())
    assert sum("cdc into a MapStore" in line for line in printed) == 2
    assert mysql_server.password not in done.stdout + done.stderr


def run_small(server, *arguments):
    """Run a benchmark on the server; returns its JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, "--json", "--repeats", "1"],
        capture_output=True, text=True, timeout=200, check=False, env=os.environ | {"CDC_SANDBOX_MYSQL_URL": server.url},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_memory_benchmark_streams_a_transaction_in_parts(mysql_server):
    """Plain and compressed, many budgets long."""
    figures = run_small(mysql_server, "memory", "--megabytes", "20")["figures"]
    assert set(figures) == {"compression OFF", "compression ON"}
    assert all(figure["parts"] >= 5 for figure in figures.values())


def test_copy_benchmark_copies_and_follows_under_writes(mysql_server):
    """The writer's transactions are in both reports."""
    report = run_small(mysql_server, "copy", "--rows", "5000", "--follow-seconds", "3")
    assert report["cdc"]["ratio"] > 0
    assert [run["rows_copied"] for run in report["runs"]["cdc, idle"]] == [5000]
    assert all(run["follow"]["transactions"] > 0 for run in report["runs"]["cdc, written"])


def test_resume_benchmark_resumes_after_kills(mysql_server):
    """For each table and an empty one, from images that hold the rows."""
    report = run_small(mysql_server, "resume", "--rows", "3000")
    assert set(report["figures"]) == {"cdc: sbtest, 3,000 rows", "cdc: orders, 3,000 rows", "cdc: no rows"}
    assert all(figure["lowest"] > 0 for figure in report["figures"].values())
    assert all(size > 3000 * 30 for size in report["image_bytes"].values())


@pytest.mark.skipif(not (ROOT / ".venv/bin/python").exists(), reason="this checkout has no .venv: make .venv/.ready")
@pytest.mark.parametrize("name", ["snapshot", "stream", "oltp", "copy", "resume"])
def test_benchmark_measures_another_checkout_in_turn(mysql_server, name):
    """Here the same checkout twice: both have figures, by their own code."""
    sizes = ["--rows", "2000", *(["--follow-seconds", "1"] if name == "copy" else [])]
    results = run_small(mysql_server, name, "--beside", str(ROOT), *sizes)
    if name == "copy":
        assert results[f"cdc of {ROOT}"]["idle"]["lowest"] > 0
    elif name == "resume":
        assert results["figures"][f"cdc of {ROOT}: orders, 2,000 rows"]["lowest"] > 0
    else:
        assert all(set(figures["ratios"]) == {f"cdc of {ROOT}"} for figures in results["tables"].values())
