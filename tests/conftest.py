"""Fixtures for all tests: the servers are in fix_servers.py, the command in fix_migration.py, a faulty
network in fix_proxy.py, two servers in fix_replicas.py."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fix_servers", "tests.fix_migration", "tests.fix_proxy", "tests.fix_replicas"]

settings.register_profile("default", deadline=None)  # on a busy machine a deadline tests the machine
settings.load_profile("default")


@pytest.fixture(scope="session", autouse=True)
def _signals_are_not_ignored() -> Iterator[None]:
    """Processes that tests start end by SIGINT and SIGHUP, also where the tests run in a shell's background or under nohup."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}  # a child gets the default for either
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if signal.getsignal(number) is signal.SIG_IGN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
