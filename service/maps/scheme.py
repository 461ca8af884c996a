"""From which edge the rows of a pyramid of tiles are counted: north (XYZ) or south (TMS)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from service.errors import SourceUnreadable
from service.geo import mercator_tile_bounds
from service.maps.sidecars import parse_xml

Scheme = Literal["xyz", "tms"]
Extent = tuple[int, int, int, int]

MERCATOR = ("mercator", "global-mercator")


def flipped(z: int, extent: Extent) -> Extent:
    """Return the columns and rows of tiles, their rows counted from the other edge."""
    first_x, last_x, first_y, last_y = extent
    return first_x, last_x, 2**z - 1 - last_y, 2**z - 1 - first_y


def scheme_of_map_resource(data: bytes, name: str, extents: Mapping[int, Extent]) -> Scheme:
    """Tell what a ``tilemapresource.xml`` says (OSGeo TMS 1.0.0): TMS, unless only XYZ fits its bounding box.

    GDAL writes the file beside tiles that it counts from the north as well.

    Args:
        data: the file.
        name: of it.
        extents: of the tiles at each zoom, their rows as they are named.

    Raises:
        SourceUnreadable: it is damaged, or of a pyramid that is not Web Mercator.
    """
    root = parse_xml(data, name)
    sets = root.find("TileSets")
    profile = "" if sets is None else sets.attrib.get("profile", "")
    srs = (root.findtext("SRS") or "").upper()
    if profile not in MERCATOR and not any(code in srs for code in ("3857", "900913", "3785")):
        raise SourceUnreadable(
            f"{name} describes tiles that are not Web Mercator (profile {profile!r:.40}, {srs!r:.40}); make them anew: "
            "gdal2tiles.py --profile=mercator"
        )
    box = root.find("BoundingBox")
    try:
        sides = {} if box is None else {key: float(box.attrib[key]) for key in ("minx", "miny", "maxx", "maxy")}
    except (KeyError, ValueError):
        sides = {}
    if not sides:
        return "tms"
    # old versions of GDAL wrote the latitude as x; some write metres
    middles = [(sides["miny"] + sides["maxy"]) / 2, (sides["minx"] + sides["maxx"]) / 2]
    if max(abs(value) for value in sides.values()) > 360:
        middles = [math.degrees(math.atan(math.sinh(middles[0] / 6_378_137)))]
    return _nearest(middles, extents, "tms")


def scheme_of_bounds(value: str, extents: Mapping[int, Extent], default: Scheme) -> Scheme:
    """Tell what bounds ``west,south,east,north`` in degrees say of the rows; the default if they say nothing."""
    try:
        _, south, _, north = (float(number) for number in value.split(","))
    except ValueError:
        return default
    return _nearest([(south + north) / 2], extents, default)


def scheme_of_tilejson(data: bytes) -> Scheme | None:
    """Tell what a TileJSON, or the ``metadata.json`` of a pyramid, says; None if it says nothing."""
    try:
        entry = json.loads(data)
        scheme = entry.get("scheme")
    except (ValueError, AttributeError, RecursionError):
        return None
    return scheme if scheme in ("xyz", "tms") else None


def _nearest(lats: Sequence[float], extents: Mapping[int, Extent], default: Scheme) -> Scheme:
    """The scheme whose tiles lie nearest to one of these latitudes, by more than the tiles' own height."""
    finest = max(extents)
    north, south = middle(finest, extents[finest]), middle(finest, flipped(finest, extents[finest]))
    distance = {"xyz": min(abs(lat - north) for lat in lats), "tms": min(abs(lat - south) for lat in lats)}
    if not np.isfinite(list(distance.values())).all() or abs(north - south) < 1e-6:
        return default
    other: Scheme = "xyz" if default == "tms" else "tms"
    return other if distance[other] < distance[default] / 4 else default


def middle(z: int, extent: Extent) -> float:
    """Return the latitude of the middle of tiles whose rows are counted from the north."""
    _, _, first_y, last_y = extent
    return (mercator_tile_bounds(z, 0, first_y)[3] + mercator_tile_bounds(z, 0, last_y)[1]) / 2
