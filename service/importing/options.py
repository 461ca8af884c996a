"""What an import is asked for, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from service.errors import InvalidParameter
from service.ground.maps import check_map_name
from service.ground.tile import MAX_SIDE_M, MIN_SIDE_M
from service.ground.windows import HALF_STEP, Lattice
from service.maps.dates import check_date

Scheme = Literal["xyz", "tms"]

OVERLAPS = (0.0, 0.5)
"""Windows lie on a lattice of half their side: neighbours overlap by half, or every other one is left out."""

MAX_TILE_SIZES = 8


@dataclass(frozen=True)
class MapOptions:
    """How to import a map.

    Args:
        map: its name; None for that of the file.
        replace: take the place of a map of this name, when all is imported.
        extend: add to the map of this name.
        scheme: how the rows of z/x/y tiles are counted; None: as the source says.
        tile_sizes_m: sides of windows, for experts: the levels nearest to them are made. None given: all levels that a
            drone photo may need.
        overlap: share of a window that its neighbour repeats, 0.5 or 0.
        date: when its pictures were taken, see ``check_date``; None: as the source says.

    Raises:
        InvalidParameter: a value cannot be followed.
    """

    map: str | None = None
    replace: bool = False
    extend: bool = False
    scheme: Scheme | None = None
    tile_sizes_m: Sequence[float] = ()
    overlap: float = 0.5
    date: str | None = None

    def __post_init__(self) -> None:
        if self.map is not None:
            check_map_name(self.map)
        if self.replace and self.extend:
            raise InvalidParameter("give replace or extend, not both: one drops the map that is there, one keeps it.")
        if self.date is not None:
            check_date(self.date)
            if self.extend:
                raise InvalidParameter("a map keeps the date that it has when it is extended; leave the date out.")
        if self.overlap not in OVERLAPS:
            raise InvalidParameter(
                f"overlap is {self.overlap:g}; windows overlap by half (0.5, the default) or not at all (0)."
            )
        if len(set(self.tile_sizes_m)) > MAX_TILE_SIZES:
            raise InvalidParameter(f"give at most {MAX_TILE_SIZES} values of tile_size_m.", limit=MAX_TILE_SIZES)
        for side_m in self.tile_sizes_m:
            if not MIN_SIDE_M <= side_m <= MAX_SIDE_M:
                raise InvalidParameter(
                    f"tile_size_m is {side_m}; give {MIN_SIDE_M} to {MAX_SIDE_M:.0f} metres, or leave it out."
                )

    def levels(self, lattice: Lattice, gsd_m: float, lat: float) -> tuple[int, ...]:
        """Return zooms of the windows to make, finest first.

        Args:
            lattice: of the model.
            gsd_m: of the map.
            lat: of its middle.

        Raises:
            InvalidParameter: windows of a wanted side cannot be made.
        """
        if not self.tile_sizes_m:
            return tuple(lattice.levels(gsd_m, lat))
        for side_m in self.tile_sizes_m:
            smallest_m = lattice.side_m(lattice.max_zoom, lat)
            if side_m * HALF_STEP < smallest_m:
                raise InvalidParameter(
                    f"tile_size_m is {side_m:g}; windows here are {smallest_m:.3g} m wide or more. Leave it out, and "
                    "the map is searched at every scale."
                )
        return tuple(sorted({lattice.level_of(side_m, lat) for side_m in self.tile_sizes_m}, reverse=True))
