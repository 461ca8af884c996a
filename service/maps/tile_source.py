"""What tiles come from, whatever it is: one interface for maps, folders, archives and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, eq=False)
class SourceTile:
    """A tile to be made: an image file, and its JSON entry with ``id``, footprint (``Footprint.parse``), properties."""

    image: bytes
    entry: dict[str, Any]


class TileSource(Protocol):
    """Places for tiles, numbered from zero in an order that is always the same. One thread at a time."""

    def __len__(self) -> int:
        """Number of places."""

    def label(self, i: int) -> str:
        """What to call place ``i`` when something is wrong with it."""

    def read(self, i: int) -> SourceTile | None:
        """The tile at place ``i``, or None where there is mostly nothing.

        Raises:
            SourceUnreadable: the whole source is damaged.
            AerofixError: this tile is.
        """

    def close(self) -> None:
        """Close the files."""
