"""A map of the ground: what is known of it as a whole."""

from __future__ import annotations

from dataclasses import dataclass

from service.errors import InvalidParameter
from service.geo import Bounds
from service.ground.tile import check_id

MAX_NAME_LENGTH = 100


@dataclass(frozen=True)
class NewMap:
    """A map to be made.

    Attributes:
        name: see :func:`check_map_name`.
        origin: name of the file that it comes from.
        bounds: ``(west, south, east, north)``, degrees.
        gsd_m: metres a pixel of the source.
        date: of its pictures, ISO 8601, None if unknown; see ``maps.dates``.
        levels: zooms of its windows, finest first.
        overlap: whether windows overlap by half, or not at all.
        min_zoom, max_zoom: of its stored pixels.
    """

    name: str
    origin: str
    bounds: Bounds
    gsd_m: float
    date: str | None
    levels: tuple[int, ...]
    overlap: bool
    min_zoom: int
    max_zoom: int


@dataclass(frozen=True)
class GroundMap(NewMap):
    """A stored map.

    Attributes:
        number: see ``windows.MAX_MAP``.
        live: whether it is searched; one that replaces another is not before it is whole.
        created_at: UTC, ISO 8601.
    """

    number: int
    live: bool
    created_at: str

    @property
    def lat(self) -> float:
        """Latitude of its middle."""
        return (self.bounds[1] + self.bounds[3]) / 2


def check_map_name(name: str) -> None:
    """Refuse a name that cannot be a part of tile ids and paths.

    Raises:
        InvalidParameter: it is empty, over 100 characters, not printable, ``.`` or ``..``, or has a slash.
    """
    if (
        not 1 <= len(name) <= MAX_NAME_LENGTH
        or "/" in name
        or "\\" in name
        or name in (".", "..")
        or name != name.strip()
    ):
        raise InvalidParameter(
            f"A map's name must be 1 to {MAX_NAME_LENGTH} characters without slashes; got {name!r:.120}. Give another "
            "with --map NAME (form field: map)."
        )
    check_id(name)
