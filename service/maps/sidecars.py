"""Files beside a raster that say where it lies: world file, .prj, .aux.xml and JSON corners."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

from service.errors import AerofixError, SourceUnreadable

MAX_BYTES = 2**20
"""A side file is a few kilobytes; an .aux.xml with histograms some hundred."""

HOW_TO_GIVE_CORNERS = (
    'Put its corners beside it as {stem}.json or corners.json: {{"corners": [[lat, lon], … clockwise from top-left]}} '
    'or {{"bounds": [w, s, e, n]}}.'
)

Beside = Callable[[str], bytes | None]
"""This gives the bytes of a file in the raster's folder by name, at most ``MAX_BYTES`` + 1; None if there is none."""


@dataclass
class Sidecars:
    """What the files beside a raster say.

    Attributes:
        crs: of the coordinates.
        transform: from pixels to them.
        points: tie points.
        corners: entry of a JSON file, and its name.
    """

    crs: CRS | None = None
    transform: Affine | None = None
    points: list[GroundControlPoint] = field(default_factory=list)
    corners: tuple[dict[str, Any], str] | None = None


def in_folder(folder: Path) -> Beside:
    """Return side files in a folder on the disk; links and whatever leads out of it are no side files."""

    def read(name: str) -> bytes | None:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)

    return read


def no_files(name: str) -> bytes | None:
    """Find no side files: a single file that was sent over HTTP has none."""
    return None


def read_sidecars(file_name: str, beside: Beside) -> Sidecars:
    """Read the files beside a raster.

    Args:
        file_name: of the raster, without its folder.
        beside: gives them.

    Raises:
        SourceUnreadable: one of them is not what its name says.
    """
    found, plain = Sidecars(), PurePosixPath(file_name)
    suffix = plain.suffix.lower().lstrip(".")
    if data := _first(beside, [f"{file_name}.aux.xml", f"{plain.stem}.aux.xml"]):
        _read_aux(found, *data)
    worlds = [f"{plain.stem}.{ending}" for ending in _world_endings(suffix)]
    if found.transform is None and (data := _first(beside, [*worlds, f"{file_name}w"])):
        found.transform = _read_world(*data)
    if found.crs is None and (data := _first(beside, [f"{plain.stem}.prj"])):
        found.crs = _crs_of(*data)
    if data := _first(beside, [f"{plain.stem}.json", "corners.json"]):
        found.corners = read_corners(*data), data[1]
    return found


def read_corners(data: bytes, name: str) -> dict[str, Any]:
    """Return the entry for ``Footprint.parse`` in a JSON file of corners.

    Forms: ``{"corners": [[lat, lon] × 4]}`` clockwise from top-left, ``{"bounds": [w, s, e, n]}``,
    ``{"corners_lonlat": {"TL": [lon, lat], "TR", "BR", "BL"}}``.

    Raises:
        SourceUnreadable: it is none of these.
    """
    try:
        entry = json.loads(data)
        if "corners_lonlat" in entry:
            entry = {"corners": [entry["corners_lonlat"][corner][::-1] for corner in ("TL", "TR", "BR", "BL")]}
        return {key: entry[key] for key in ("corners", "bounds") if key in entry}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        how = HOW_TO_GIVE_CORNERS.format(stem=PurePosixPath(name).stem)
        raise SourceUnreadable(f"{name} cannot be read as corners ({error!r:.200}). {how}") from error


def parse_xml(data: bytes, name: str) -> ET.Element:
    """Parse XML that may declare no entities, which could grow without end or name other files.

    Raises:
        SourceUnreadable: it declares some, or is damaged.
    """
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise SourceUnreadable(f"{name} declares XML entities; remove its <!DOCTYPE>.")
    try:
        return ET.fromstring(data)  # noqa: S314
    except (ET.ParseError, ValueError, LookupError) as error:
        raise SourceUnreadable(f"{name} is no XML ({error}); remove it, or write it anew.") from error


def _first(beside: Beside, names: list[str]) -> tuple[bytes, str] | None:
    """The first of these files that is there, in any spelling of its suffix."""
    for name in names:
        for spelling in dict.fromkeys((name, f"{PurePosixPath(name).stem}{PurePosixPath(name).suffix.upper()}")):
            data = beside(spelling)
            if data is not None:
                if len(data) > MAX_BYTES:
                    raise SourceUnreadable(f"{spelling} is over {MAX_BYTES} bytes; remove it.", limit=MAX_BYTES)
                return data, spelling
    return None


def _world_endings(suffix: str) -> list[str]:
    """``tfw`` and ``tifw`` for ``tif``, as GDAL and ESRI name them, and ``wld``."""
    return [*([suffix[0] + suffix[-1] + "w", suffix + "w"] if suffix else []), "wld"]


def _read_world(data: bytes, name: str) -> Affine:
    """Six numbers: A, D, B, E and the centre of the top-left pixel (ESRI's world file)."""
    try:
        a, d, b, e, x, y = (float(word.replace(b",", b".")) for word in data.split()[:6])
    except ValueError as error:
        raise SourceUnreadable(f"{name} is not a world file: it should hold six numbers, one a line.") from error
    return Affine(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)


def _crs_of(data: bytes, name: str) -> CRS:
    try:
        text = data.decode("utf-8-sig").strip()
        return CRS.from_wkt(text, morph_from_esri_dialect=True) if "[" in text else CRS.from_user_input(text)
    except AerofixError:
        raise
    except Exception as error:
        raise SourceUnreadable(
            f"{name} names no coordinate system that is known; replace it, or give the map one: "
            "gdal_translate -a_srs EPSG:… in.tif out.tif"
        ) from error


def _read_aux(found: Sidecars, data: bytes, name: str) -> None:
    """GDAL's .aux.xml (PAM): SRS, GeoTransform, GCPList."""
    root = parse_xml(data, name)
    if srs := (root.findtext("SRS") or "").strip():
        found.crs = _crs_of(srs.encode(), name)
    try:
        if numbers := root.findtext("GeoTransform"):
            found.transform = Affine.from_gdal(*(float(number) for number in numbers.split(",")))
        gcps = root.find("GCPList")
        if gcps is not None:
            places = [[float(gcp.attrib[key]) for key in ("Line", "Pixel", "X", "Y")] for gcp in gcps.iter("GCP")]
            found.points = [GroundControlPoint(*place) for place in places]
            if projection := gcps.attrib.get("Projection", ""):
                found.crs = _crs_of(projection.encode(), name)
    except (ValueError, TypeError, KeyError) as error:
        raise SourceUnreadable(f"{name} holds numbers that are none ({error}); remove it.") from error
