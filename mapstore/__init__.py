"""A hash map of bytes that never stops the world: Go's incremental evacuation, for Python.

The map is `MapStore`; `read_metadata` looks into an image without loading it; `ImageError` says what is wrong with one.
"""

from mapstore._map import MapStore
from mapstore.image import ImageError, read_metadata

__all__ = ["ImageError", "MapStore", "read_metadata"]
