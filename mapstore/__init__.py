"""A hash map of bytes that never stops the world: Go's incremental evacuation, for Python.

The map is `MapStore`; `read_metadata` and `check_image` read an image's metadata, or check all of it, without loading it; `ImageError` is
raised for an unreadable image.
"""

from mapstore._map import MapStore
from mapstore.image import ImageError, read_metadata
from mapstore.image import check as check_image

__all__ = ["ImageError", "MapStore", "check_image", "read_metadata"]
