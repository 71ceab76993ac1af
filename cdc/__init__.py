"""Migrate live MySQL tables: copy by primary key, hand over to the binlog at a GTID, follow with low lag.

The engine as a library::

    import cdc

    config = cdc.Config(cdc.parse_source("mysql://user@host/"), Path("state"), (cdc.TableId("shop", "orders"),), until_caught_up=True)
    print(cdc.migrate(config).as_dict())
"""

from cdc.api import changes, check, migrate, parse_source
from cdc.changes import Change, Changes
from cdc.config import Config, Strategy
from cdc.errors import CdcError
from cdc.model import TableId

__all__ = ["CdcError", "Change", "Changes", "Config", "Strategy", "TableId", "changes", "check", "migrate", "parse_source"]
