"""The values that flow between the layers, all frozen and without I/O; rows are bytes until the edge."""

from cdc.model.checkpoint import Checkpoint, Rates, TableProgress, TableState, servers_with
from cdc.model.position import Behind, BinlogMark, LogEnd, Position, log_number
from cdc.model.row import NULL, decode_row, encode_row, encode_value
from cdc.model.schema_change import (
    ADDED,
    ColumnsChanged,
    CopyAnew,
    DefinitionConfirmed,
    TableChange,
    TableDropped,
    TableRenamed,
    TableSkipped,
    TableTruncated,
)
from cdc.model.stream import Batch, Boundary, Chunk, ChunkRequest, Delivery, Item, Load, Op, SourceAway, SourceChanged, Transaction
from cdc.model.table import Column, Table, TableId, VirtualColumn

__all__ = [
    "ADDED",
    "NULL",
    "Batch",
    "Behind",
    "BinlogMark",
    "Boundary",
    "Checkpoint",
    "Chunk",
    "ChunkRequest",
    "Column",
    "ColumnsChanged",
    "CopyAnew",
    "DefinitionConfirmed",
    "Delivery",
    "Item",
    "Load",
    "LogEnd",
    "Op",
    "Position",
    "Rates",
    "SourceAway",
    "SourceChanged",
    "Table",
    "TableChange",
    "TableDropped",
    "TableId",
    "TableProgress",
    "TableRenamed",
    "TableSkipped",
    "TableState",
    "TableTruncated",
    "Transaction",
    "VirtualColumn",
    "decode_row",
    "encode_row",
    "encode_value",
    "log_number",
    "servers_with",
]
