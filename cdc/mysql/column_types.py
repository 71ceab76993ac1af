"""MySQL's column types as the binlog numbers them (enum_field_types). Source: MySQL, field_types.h."""

from __future__ import annotations

TINY, SHORT, LONG, FLOAT, DOUBLE, LONGLONG, INT24, DATE, YEAR, NEWDATE = 1, 2, 3, 4, 5, 8, 9, 10, 13, 14
VARCHAR, BIT, TIMESTAMP2, DATETIME2, TIME2, TYPED_ARRAY = 15, 16, 17, 18, 19, 20
VECTOR, JSON, NEWDECIMAL, ENUM, SET, BLOB, VAR_STRING, STRING, GEOMETRY = 242, 245, 246, 247, 248, 252, 253, 254, 255

NUMERIC = frozenset({TINY, SHORT, INT24, LONG, LONGLONG, NEWDECIMAL, FLOAT, DOUBLE})
STRINGS = frozenset({STRING, VARCHAR, VAR_STRING})
FRACTIONAL = {TIME2: "time", DATETIME2: "datetime", TIMESTAMP2: "timestamp"}
"""The types whose metadata is the number of fractional digits, with their names."""
_FIXED, _VARYING = (STRING, VAR_STRING), (VARCHAR, VAR_STRING)

GEOMETRIES = (
    ("geometry",), ("point",), ("linestring",), ("polygon",), ("multipoint",), ("multilinestring",), ("multipolygon",),
    ("geomcollection", "geometrycollection"),
)  # fmt: skip
"""Names of the geometry types; the index is the subtype in a table map."""
BLOBS = ("tinyblob", "tinytext"), ("blob", "text"), ("mediumblob", "mediumtext"), ("longblob", "longtext")
"""Names of the BLOB and TEXT types; the index is the number of bytes of a value's length, less one."""

BY_NAME: dict[str, tuple[int, ...]] = {
    "tinyint": (TINY,), "smallint": (SHORT,), "mediumint": (INT24,), "int": (LONG,), "bigint": (LONGLONG,), "float": (FLOAT,),
    "double": (DOUBLE,), "decimal": (NEWDECIMAL,), "bit": (BIT,), "year": (YEAR,), "date": (DATE, NEWDATE), "time": (TIME2,),
    "datetime": (DATETIME2,), "timestamp": (TIMESTAMP2,), "char": _FIXED, "varchar": _VARYING, "binary": _FIXED,
    "varbinary": _VARYING, "inet4": _FIXED, "inet6": _FIXED, "uuid": _FIXED,
    "enum": (ENUM,), "set": (SET,), "json": (JSON,), "vector": (VECTOR,),
} | dict.fromkeys((name for names in BLOBS for name in names), (BLOB,)) | dict.fromkeys(
    (name for names in GEOMETRIES for name in names), (GEOMETRY,)
)  # fmt: skip
"""The binlog's types of a column, by information_schema's data_type."""

ALL = frozenset(number for numbers in BY_NAME.values() for number in numbers)
