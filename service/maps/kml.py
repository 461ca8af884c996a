"""Ground overlays of KML and KMZ (OGC KML 2.3), superoverlays too, as one mosaic."""

from __future__ import annotations

import math
import posixpath
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

import numpy as np

from service.errors import AerofixError, InvalidParameter, SourceUnreadable
from service.geo import LatLon, offset, offset_m
from service.ground.tile import Footprint
from service.maps.folder import Files
from service.maps.pieces import Pieces, UnopenedPiece
from service.maps.sidecars import parse_xml
from service.maps.table import picture, size_of

MAX_OVERLAYS = 200_000


def open_kml(files: Files, documents: Sequence[str], name: str, map_name: str) -> Pieces:
    """Open the ground overlays of KML documents.

    Args:
        files: the documents and their pictures.
        documents: names of the documents among them.
        name: what the user calls the source.
        map_name: of the map.

    Raises:
        SourceUnreadable: there is no overlay whose picture is among the files.
    """
    parts: dict[tuple[str, tuple[LatLon, ...]], UnopenedPiece] = {}
    troubles: list[str] = []
    for document in documents:
        for overlay in _overlays(parse_xml(files.read(document), document)):
            try:
                file = _picture_of(overlay, document, files)
                size = size_of(files, file)
                footprint = Footprint.from_corners(_corners(overlay), *size)
                parts[file, footprint.corners] = picture(files, file, footprint, size)
            except AerofixError as error:
                troubles.append(f"{document}: {error.detail}")
            if len(parts) + len(troubles) > MAX_OVERLAYS:
                raise SourceUnreadable(f"{name} has over {MAX_OVERLAYS} overlays; cut it.", limit=MAX_OVERLAYS)
    if not parts:
        why = troubles[0] if troubles else "It has no GroundOverlay; export a GeoTIFF, or a KMZ with images."
        raise SourceUnreadable(f"{name} holds no picture that lies on the ground. {why}")
    notes = [f"{len(troubles)} overlays of {name} are left out; the first: {troubles[0]}"] if troubles else []
    return Pieces(list(parts.values()), map_name, notes, files.close)


def _overlays(root: ET.Element) -> list[ET.Element]:
    """All ground overlays, their tags without namespaces."""
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
    return list(root.iter("GroundOverlay"))


def _picture_of(overlay: ET.Element, document: str, files: Files) -> str:
    """Name of the overlay's picture among the files."""
    href = unquote((overlay.findtext("Icon/href") or "").strip()).replace("\\", "/")
    if "://" in href:
        raise InvalidParameter(f"the picture {href:.200} is on the network; put it into the KMZ.")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(document), href))
    if not href or file not in files.names:
        raise InvalidParameter(f"there is no picture {href!r:.200} beside it; put it into the KMZ.")
    return file


def _corners(overlay: ET.Element) -> list[LatLon]:
    """Corners ``(lat, lon)``, clockwise from the picture's top-left one."""
    quad, box = overlay.find("LatLonQuad"), overlay.find("LatLonBox")
    try:
        if quad is not None:  # from the lower left, counter-clockwise
            words = (quad.findtext("coordinates") or "").split()
            sw, se, ne, nw = [(float(lat), float(lon)) for lon, lat in (word.split(",")[:2] for word in words)]
            return [nw, ne, se, sw]
        if box is None:
            raise InvalidParameter("an overlay has neither LatLonBox nor LatLonQuad.")
        north, south, east, west = (float(box.findtext(side) or "") for side in ("north", "south", "east", "west"))
        turn = float(box.findtext("rotation") or 0)
    except ValueError as error:
        raise InvalidParameter("an overlay's corners are not numbers.") from error
    corners = [(north, west), (north, east), (south, east), (south, west)]
    if turn == 0:
        return corners
    lat, lon = (north + south) / 2, west + (east - west) % 360 / 2
    east_m, north_m = offset_m(lat, lon, *np.array(corners).T)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))  # counter-clockwise
    lats, lons = offset(lat, lon, cos * east_m - sin * north_m, sin * east_m + cos * north_m)
    return [(float(a), float(b)) for a, b in zip(lats, lons, strict=True)]


def documents_in(names: Iterable[str]) -> list[str]:
    """Return the KML documents among files."""
    return [name for name in names if PurePosixPath(name).suffix.lower() == ".kml"]
