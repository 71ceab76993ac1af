"""Fixtures for all tests: the servers are in fix_servers.py, the command in fix_migration.py, a faulty
network in fix_proxy.py, two servers in fix_replicas.py."""

from hypothesis import settings

pytest_plugins = ["tests.fix_servers", "tests.fix_migration", "tests.fix_proxy", "tests.fix_replicas"]

settings.register_profile("default", deadline=None)  # on a busy machine a deadline tests the machine
settings.load_profile("default")
