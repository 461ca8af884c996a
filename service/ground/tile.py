"""A tile of the map: its name, and the piece of ground that it shows."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from service.errors import InvalidFootprint, InvalidParameter
from service.geo import MAX_MERCATOR_LAT, Bounds, LatLon, mercator_tile_bounds, offset, offset_m, wrap_east, wrap_lon

MIN_SIDE_M, MAX_SIDE_M = 0.5, 100_000.0
"""Below the first, no drone photo matches a tile; above the second, the flat plane in which footprints are measured is
off by over 1 %."""

FLAT = 1e-6
"""A corner whose turn is this small against the largest one lies on a line, whatever rounding says."""

MAX_ID_LENGTH = 200
MAX_PROPERTIES_BYTES = 16_384
"""Properties may take so many bytes as UTF-8; those of every tile are held in memory."""

MAX_PROPERTIES_DEPTH = 32
"""Lists and objects may lie so deep inside each other: more than GeoJSON needs, and far from the 250 or so that no
answer can hold."""

ORDER = "top-left, top-right, bottom-right, bottom-left (clockwise from the image's top-left corner)"
FORMS: dict[str, tuple[str, ...]] = {
    '{"bounds": [w, s, e, n]}': ("bounds",),
    '{"corners": [[lat, lon], … four of them]}': ("corners",),
    '{"lat": …, "lon": …, "gsd_m": …}': ("lat", "lon", "gsd_m"),
    '{"z": …, "x": …, "y": …}': ("z", "x", "y"),
}


@dataclass(frozen=True)
class Footprint:
    """The quadrilateral on the ground that a tile's image shows.

    Args:
        corners: four ``(lat, lon)``, clockwise from the image's top-left corner. The image may be turned against
            north, but not mirrored. Latitudes lie in the Web Mercator range (±85.05°), longitudes in ±180°.
        gsd_m: ground sample distance, metres a pixel.

    Raises:
        InvalidFootprint: the corners are out of range, out of order, not convex, or the side is under 0.5 m or over
            100 km.
    """

    corners: tuple[LatLon, LatLon, LatLon, LatLon]
    gsd_m: float

    def __post_init__(self) -> None:
        for lat, lon in self.corners:
            _check_place(lat, lon)
        if not (math.isfinite(self.gsd_m) and self.gsd_m > 0):
            raise InvalidFootprint(f"gsd_m is {self.gsd_m}; give metres a pixel, above zero.")
        if max(abs(float(wrap_lon(lon - self.corners[0][1]))) for _, lon in self.corners) > 90:
            raise InvalidFootprint(f"The corners are over 90° of longitude apart; tiles end at {MAX_SIDE_M:.0f} m.")
        _check_order(self._turns)
        if not MIN_SIDE_M <= self.side_m <= MAX_SIDE_M:
            raise InvalidFootprint(
                f"The tile's side is {self.side_m:.3g} m; give a tile between {MIN_SIDE_M} m and {MAX_SIDE_M:.0f} m.",
                actual=self.side_m,
            )

    @classmethod
    def known(
        cls,
        corners: tuple[LatLon, LatLon, LatLon, LatLon],
        gsd_m: float,
        centre: LatLon,
        bounds: Bounds,
        side_m: float,
    ) -> Footprint:
        """Make a footprint of values that are known to be right, as a window's: nothing is checked or computed."""
        footprint = object.__new__(cls)
        footprint.__dict__.update(corners=corners, gsd_m=gsd_m, centre=centre, bounds=bounds, side_m=side_m)
        return footprint

    @classmethod
    def from_corners(cls, corners: Sequence[Sequence[float]], width_px: int, height_px: int) -> Footprint:
        """Make the footprint of an image from its four ``(lat, lon)`` corners, clockwise from top-left."""
        if len(corners) != 4 or any(len(corner) != 2 for corner in corners):
            raise InvalidFootprint(f"corners must be four [lat, lon] pairs: {ORDER}.")
        top_left, top_right, bottom_right, bottom_left = ((float(lat), float(lon)) for lat, lon in corners)
        four = (top_left, top_right, bottom_right, bottom_left)
        side_m = cls(four, gsd_m=1.0).side_m  # square root of the area, whatever the gsd
        return cls(four, side_m / math.sqrt(width_px * height_px))

    @classmethod
    def from_bounds(cls, w: float, s: float, e: float, n: float, width_px: int, height_px: int) -> Footprint:
        """Make the footprint of a north-up image; ``w > e`` means that it crosses the antimeridian."""
        if not s < n:
            raise InvalidFootprint(f"bounds have south {s} and north {n}; south must be below north: [w, s, e, n].")
        if not 0 < (e - w) % 360 <= 90:
            raise InvalidFootprint(f"bounds have west {w} and east {e}; give at most 90° from west to east.")
        return cls.from_corners([(n, w), (n, e), (s, e), (s, w)], width_px, height_px)

    @classmethod
    def from_centre(cls, lat: float, lon: float, gsd_m: float, width_px: int, height_px: int) -> Footprint:
        """Make the footprint of a north-up image around a place, ``gsd_m`` metres a pixel."""
        _check_place(lat, lon)
        east_m, north_m = gsd_m * width_px / 2, gsd_m * height_px / 2
        if not (math.isfinite(gsd_m) and 0 < max(east_m, north_m) <= MAX_SIDE_M):
            raise InvalidFootprint(f"gsd_m is {gsd_m}; give metres a pixel, above zero, for a tile of at most 100 km.")
        signs = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)])
        lats, lons = offset(lat, lon, signs[:, 0] * east_m, signs[:, 1] * north_m)
        return cls.from_corners(np.column_stack([lats, lons]).tolist(), width_px, height_px)

    @classmethod
    def from_zxy(cls, z: int, x: int, y: int, width_px: int) -> Footprint:
        """Make the footprint of a square Web Mercator tile (XYZ scheme, y from the north)."""
        try:
            bounds = mercator_tile_bounds(z, x, y)
        except InvalidParameter as error:
            raise InvalidFootprint(error.detail) from error
        return cls.from_bounds(*bounds, width_px, width_px)

    @classmethod
    def parse(cls, entry: Mapping[str, Any], width_px: int, height_px: int) -> Footprint:
        """Read the one of the four documented forms that a JSON entry holds.

        Args:
            entry: holds ``bounds``, or ``corners``, or ``lat, lon, gsd_m``, or ``z, x, y``; other keys are ignored.
            width_px: width of the tile's image.
            height_px: height of the tile's image.

        Raises:
            InvalidFootprint: none or several of the forms, a value missing or of the wrong type, or a bad footprint.
        """
        given = [form for form, keys in FORMS.items() if any(key in entry for key in keys)]
        if len(given) != 1:
            raise InvalidFootprint(f"Give exactly one footprint: {' or '.join(FORMS)}; found {len(given)}.")
        keys = FORMS[given[0]]
        if missing := [key for key in keys if key not in entry]:
            raise InvalidFootprint(f"{given[0]} lacks {', '.join(missing)}.")
        if keys == ("bounds",):
            w, s, e, n = _numbers("bounds", entry["bounds"], 4)
            return cls.from_bounds(w, s, e, n, width_px, height_px)
        if keys == ("corners",):
            corners = entry["corners"]
            if not isinstance(corners, list | tuple) or len(corners) != 4:
                raise InvalidFootprint(f"corners must be four [lat, lon] pairs: {ORDER}.")
            return cls.from_corners([_numbers("a corner", corner, 2) for corner in corners], width_px, height_px)
        values = _numbers(given[0], [entry[key] for key in keys], 3)
        if keys == ("z", "x", "y"):
            if any(value != int(value) for value in values) or width_px != height_px:
                raise InvalidFootprint("z, x and y must be whole numbers, and the image of a z/x/y tile square.")
            return cls.from_zxy(int(values[0]), int(values[1]), int(values[2]), width_px)
        return cls.from_centre(values[0], values[1], values[2], width_px, height_px)

    @cached_property
    def centre(self) -> LatLon:
        """The mean of the corners: the tile's position, as ``(lat, lon)``."""
        lon0 = self.corners[0][1]
        lon = lon0 + sum(float(wrap_lon(lon - lon0)) for _, lon in self.corners) / 4
        return sum(lat for lat, _ in self.corners) / 4, float(wrap_lon(lon))

    @cached_property
    def bounds(self) -> Bounds:
        """``(west, south, east, north)``; west exceeds east when the tile crosses the antimeridian."""
        lats = [lat for lat, _ in self.corners]
        lon0 = self.corners[0][1]
        deltas = [float(wrap_lon(lon - lon0)) for _, lon in self.corners]
        return (
            float(wrap_lon(lon0 + min(deltas))),
            min(lats),
            wrap_east(lon0 + max(deltas)),
            max(lats),
        )

    @cached_property
    def side_m(self) -> float:
        """Square root of the area, in metres: the side of a square tile."""
        area_m2 = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in self._edges_m) / 2  # shoelace formula
        return math.sqrt(abs(area_m2))

    @cached_property
    def _edges_m(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """Ends of the four edges, metres east and north of the centre, starting with the top one."""
        lats, lons = np.array(self.corners).T
        east_m, north_m = offset_m(*self.centre, lats, lons)
        corners = list(zip(east_m.tolist(), north_m.tolist(), strict=True))
        return list(zip(corners, corners[1:] + corners[:1], strict=True))

    @property
    def _turns(self) -> list[float]:
        """Cross product of the edges before and after each corner, m²; negative is a right turn."""
        vectors = [(x2 - x1, y2 - y1) for (x1, y1), (x2, y2) in self._edges_m]
        before = vectors[-1:] + vectors[:-1]
        return [x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(before, vectors, strict=True)]


@dataclass(frozen=True)
class Tile:
    """A named piece of the map.

    Args:
        id: 1 to 200 printable characters, unique in a gallery; slashes may part it, but see ``check_id``.
        footprint: the ground that it shows.
        properties: the user's own JSON object, up to 16 KiB and 32 levels deep.

    Raises:
        InvalidParameter: the id or the properties are not as above.
    """

    id: str
    footprint: Footprint
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_id(self.id)
        _check_properties(f"properties of tile {self.id!r}", self.properties)

    @classmethod
    def known(cls, tile_id: str, footprint: Footprint) -> Tile:
        """Return a tile without properties whose id is known to be right."""
        tile = object.__new__(cls)
        tile.__dict__.update(id=tile_id, footprint=footprint, properties={})
        return tile


def check_id(tile_id: str) -> None:
    """Refuse a tile id that is empty, over 200 characters, not printable, or has parts that no address keeps.

    Clients and proxies leave out the parts ``.``, ``..`` and "" of an address (RFC 3986, section 5.2.4): a request for
    such a tile would reach another one.

    Raises:
        InvalidParameter: as said.
    """
    if not (isinstance(tile_id, str) and 1 <= len(tile_id) <= MAX_ID_LENGTH and tile_id.isprintable()):
        raise InvalidParameter(
            f"A tile id must be 1 to {MAX_ID_LENGTH} printable characters without control characters; got "
            f"{tile_id!r:.220}."
        )
    if not {"", ".", ".."}.isdisjoint(tile_id.split("/")):
        raise InvalidParameter(
            f'A tile id must not have an empty part, "." or ".." between slashes, for addresses lose them; got '
            f"{tile_id!r:.220}."
        )


def stable_id(image_bytes: bytes, footprint: Footprint) -> str:
    """Name a tile by what it is: the same image on the same ground always gets the same id."""
    ground = ";".join(f"{lat:.9f},{lon:.9f}" for lat, lon in footprint.corners)  # 1e-9° is a tenth of a millimetre
    return "tile-" + hashlib.sha256(image_bytes + b"\0" + ground.encode()).hexdigest()[:24]


def _check_properties(what: str, properties: Mapping[str, Any]) -> None:
    """Refuse what no answer could hold: it would take every list of tiles down with it."""
    if _is_deeper(properties, MAX_PROPERTIES_DEPTH):
        raise InvalidParameter(
            f"{what} have lists or objects over {MAX_PROPERTIES_DEPTH} deep; make them flatter, or send such data as "
            "a string.",
            limit=MAX_PROPERTIES_DEPTH,
        )
    try:
        size = len(json.dumps(dict(properties), allow_nan=False, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        raise InvalidParameter(
            f"{what} have half a character, {error.object[error.start]!r}; send both halves of the surrogate pair, or "
            "plain UTF-8."
        ) from error
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"{what} must be a JSON object: {error}.") from error
    if size > MAX_PROPERTIES_BYTES:
        raise InvalidParameter(
            f"{what} take {size} bytes; the limit is {MAX_PROPERTIES_BYTES}.", limit=MAX_PROPERTIES_BYTES, actual=size
        )


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether more than so many lists and objects lie inside each other."""
    if not isinstance(value, Mapping | list | tuple):
        return False
    inside = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inside)


def _check_place(lat: float, lon: float) -> None:
    if not abs(lat) <= MAX_MERCATOR_LAT:
        raise InvalidFootprint(
            f"A latitude is {lat}; give one within ±{MAX_MERCATOR_LAT:.4f}, the Web Mercator range (order: lat, lon)."
        )
    if not abs(lon) <= 180:
        raise InvalidFootprint(f"A longitude is {lon}; give one between -180 and 180 (order: lat, lon).")


def _check_order(turns: list[float]) -> None:
    """Refuse corners that do not turn right four times."""
    limit = FLAT * max(map(abs, turns))
    left = sum(turn > limit for turn in turns)
    if all(turn < -limit for turn in turns):
        return
    if any(abs(turn) <= limit for turn in turns):
        seen = "three of them lie on a line or two are the same, so the tile has no area"
    elif left == 4:
        seen = "they run counter-clockwise (left and right, or top and bottom, are exchanged)"
    elif left == 2:
        seen = "their edges cross (two neighbouring corners are exchanged)"
    else:
        seen = "the shape is not convex (a corner points inwards)"
    raise InvalidFootprint(f"The corners must be in the order {ORDER}; {seen}.")


def _numbers(name: str, values: Any, length: int) -> list[float]:
    """Take a JSON list of ``length`` finite numbers."""
    if not (isinstance(values, list | tuple) and len(values) == length and all(map(_is_finite_number, values))):
        raise InvalidFootprint(f"{name} must be {length} finite numbers; got {values!r:.80}.")
    return [float(value) for value in values]


def _is_finite_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # JSON has whole numbers that no float holds
