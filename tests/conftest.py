"""Fixtures for all tests: the servers are in fix_servers.py, the command in fix_migration.py, a faulty
network in fix_proxy.py, two servers in fix_replicas.py."""

import random
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fix_servers", "tests.fix_migration", "tests.fix_proxy", "tests.fix_replicas"]

settings.register_profile("default", deadline=None)  # on a busy machine a deadline tests the machine
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that repeat tests."""
    parser.addoption("--rounds", type=int, default=1, metavar="N", help="run every chosen test N times, in rounds")
    parser.addoption("--rounds-seed", type=int, default=random.SystemRandom().randrange(1 << 32), help="repeat the rounds' order")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Print the seed that repeats the order."""
    return [f"rounds: --rounds-seed {config.getoption('rounds_seed')}"] if config.getoption("rounds") > 1 else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the number of its round as a parameter."""
    if (rounds := metafunc.config.getoption("rounds")) > 1:
        metafunc.fixturenames.append("_round")
        metafunc.parametrize("_round", range(rounds), ids=(f"round{number}" for number in range(rounds)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In each round the modules come in another order, and the tests of each forwards or backwards, so that its servers start once."""
    if config.getoption("rounds") == 1:
        return
    rng, drawn, places = random.Random(config.getoption("rounds_seed")), {}, {}
    for number, item in enumerate(items):
        part = (item.callspec.params["_round"], item.path)
        place, direction = drawn.setdefault(part, (rng.random(), rng.choice((1, -1))))
        places[item] = (part[0], place, direction * number)
    items.sort(key=places.__getitem__)


@pytest.fixture(scope="session", autouse=True)
def _signals_are_not_ignored() -> Iterator[None]:
    """Processes that tests start end by SIGINT and SIGHUP, also where the tests run in a shell's background or under nohup."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}  # a child gets the default for either
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if signal.getsignal(number) is signal.SIG_IGN}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
