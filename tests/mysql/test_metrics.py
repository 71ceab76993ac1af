"""What a running migration serves to Prometheus, with a lag that keeps counting while the link is lost."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fix_migration import PATIENCE, Project
from tests.mysql.test_throttle import fill, line_with

pytestmark = pytest.mark.waits

Figures = dict[tuple[str, ...], float]


def scraped(url: str) -> Figures:
    """Every sample by its name and label values."""
    with urlopen(url) as answer:
        assert answer.status == 200
        text = answer.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value for family in text_string_to_metric_families(text) for sample in family.samples
    }


def until(url: str, reached: Callable[[Figures], bool]) -> Figures:
    """Scrape until the condition on the figures holds."""
    for _ in range(PATIENCE * 10):
        figures = scraped(url)
        if reached(figures):
            return figures
        time.sleep(0.1)
    raise AssertionError(figures)


def test_scrape_has_every_metric_of_the_run(project: Project):
    """Of the copy, which is held back here, the stream, checkpoints and the map; on loopback only."""
    fill(project)
    process = project.start_held("--metrics-port", "0")
    url = line_with(process, "metrics at").split()[-1]
    assert url.startswith("http://127.0.0.1:")
    held = until(url, lambda figures: figures["cdc_throttled", "rows"] == 1 and figures["cdc_rows_copied_total",] > 0)
    assert held["cdc_tables", "copying"] == 1
    project.let_go(process)
    project.wait_streaming(process)
    project.sql("UPDATE t SET v = v + 1 WHERE id < 100", "UPDATE t SET v = v + 1 WHERE id < 100")
    figures = until(url, lambda figures: figures["cdc_rows_streamed_total",] >= 200)
    assert figures["cdc_rows_copied_total",] == figures["cdc_store_rows", str(project.table)] == 20_000
    assert figures["cdc_transactions_total",] >= 2
    assert figures["cdc_transaction_lag_seconds_count",] >= 2
    assert figures["cdc_transaction_lag_seconds_bucket", "+Inf"] == figures["cdc_transaction_lag_seconds_count",]
    assert figures["cdc_transaction_lag_seconds_sum",] > 0
    assert figures["cdc_received_bytes_total",] > 20_000
    assert figures["cdc_throttled_seconds_total", "rows"] > 0
    assert figures["cdc_throttled_seconds_total", "replica"] == figures["cdc_throttled", "rows"] == 0
    assert figures["cdc_chunks_in_flight",] == figures["cdc_tables", "copying"] == figures["cdc_reconnects_total",] == 0
    assert figures["cdc_tables", "streaming"] == 1
    assert figures["cdc_checkpoints_total",] > 1
    assert figures["cdc_checkpoint_duration_seconds",] > 0
    assert 0 <= figures["cdc_checkpoint_age_seconds",] < PATIENCE
    assert figures["cdc_store_bytes", str(project.table)] > 20_000
    assert figures["process_resident_memory_bytes",] > 0
    project.end(process)


def test_unfinished_requests_harm_neither_migration_nor_scrapes(project: Project):
    """Of hundreds at once, in a process with few descriptors, all but a few are cut off."""
    fill(project)
    process = project.start("--metrics-port", "0")
    assert process.stderr
    url = line_with(process, "metrics at").split()[-1]
    project.wait_streaming(process)
    descriptors = Path(f"/proc/{process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (before + 40, before + 40))
    port = int(url.rpartition(":")[2].partition("/")[0])
    with ExitStack() as stack:
        for number in range(400):
            half_open = stack.enter_context(closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)))
            half_open.sendall((b"", b"GET", b"GET /metrics HTTP/1.1\r\nX: ")[number % 3])
            if number % 100 == 0:
                project.sql("UPDATE t SET v = v + 1 WHERE id < 10")
        assert len(list(descriptors.iterdir())) < before + 20
        until(url, lambda figures: figures["cdc_rows_streamed_total",] >= 40 and figures["cdc_checkpoints_total",] > 2)
        checkpoints = scraped(url)["cdc_checkpoints_total",]
        project.sql("UPDATE t SET v = v + 1 WHERE id < 10")
        until(url, lambda figures: figures["cdc_checkpoints_total",] > checkpoints)
        project.end(process)


def test_lag_grows_while_the_link_is_lost(project: Project, proxy):
    """It returns to its earlier value once the source is back."""
    fill(project)
    faulty = proxy(project.source.host, project.source.port)
    project.url = f"mysql://{project.source.user}:{project.source.password}@127.0.0.1:{faulty.port}/"
    process = project.start("--metrics-port", "0")
    url = line_with(process, "metrics at").split()[-1]
    project.wait_streaming(process)
    before = until(url, lambda figures: figures["cdc_lag_seconds",] < 1)
    faulty.refusing = True
    faulty.cut()
    until(url, lambda figures: figures["cdc_lag_seconds",] > 4)
    project.wait(process, lambda checkpoint: float(str(checkpoint.report["lag_now_ms"])) > 3_000)
    status = project.cdc("status", f"mapstore:{project.state}")
    assert " ms at the checkpoint" in status.stdout
    assert json.loads(project.cdc("status", f"mapstore:{project.state}", "--json").stdout)["last_run"]["lag_now_ms"] > 3_000
    faulty.refusing = False
    after = until(url, lambda figures: figures["cdc_lag_seconds",] < 1)
    assert after["cdc_reconnects_total",] > before["cdc_reconnects_total",]
    project.end(process)


def test_taken_port_is_refused(project: Project):
    """Before any row is copied."""
    project.sql("CREATE TABLE t (id INT PRIMARY KEY)")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = project.refused("--metrics-port", str(port), expect=2)
    assert f"Metrics cannot be served at 127.0.0.1, port {port}" in sentence
    assert "--metrics-port" in sentence
