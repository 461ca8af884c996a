"""Who says where a raster lies: corners that the user gives, the file itself, or the files beside it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from service.errors import SourceUnreadable
from service.ground.tile import Footprint
from service.maps.place import Georeference, cornered, placed, tied
from service.maps.sidecars import HOW_TO_GIVE_CORNERS, Beside, Sidecars, no_files, read_corners, read_sidecars


def georeferenced(
    dataset: Any, name: str, corners: Path | None = None, beside: Beside = no_files, beside_name: str = ""
) -> Georeference:
    """Tell where an open raster lies.

    Args:
        dataset: the raster.
        name: what the user calls it.
        corners: JSON file with its corners, which wins over everything else; see ``read_corners``.
        beside: gives the files in its folder. They fill what the raster itself leaves out.
        beside_name: its file name in that folder.

    Raises:
        SourceUnreadable: nothing says it, or in coordinates that are tied to no place on Earth.
        InvalidFootprint: corners or tie points that fit no view from above.
    """
    if corners is not None:
        try:
            data = corners.read_bytes()
        except OSError as error:
            raise SourceUnreadable(f"{corners.name} cannot be read ({error.strerror}); check --corners.") from error
        return _by_corners(dataset, read_corners(data, corners.name), corners.name)
    own = _own(dataset)
    found = own if _complete(own) else _merged(own, read_sidecars(beside_name or name, beside))
    if found.crs is not None and found.transform is not None:
        return placed(found.crs, found.transform, dataset.width, name)
    if found.crs is not None and len(found.points) >= 3:
        return tied(found.points, found.crs, dataset.width, dataset.height, name)
    if found.corners is not None:
        return _by_corners(dataset, *found.corners)
    raise SourceUnreadable(_what_is_missing(dataset, found, name))


def _own(dataset: Any) -> Sidecars:
    """What the raster itself says."""
    points, point_crs = dataset.gcps
    transform = None if dataset.transform.is_identity else dataset.transform
    return Sidecars(dataset.crs or point_crs, transform, points if transform is None else [])


def _complete(found: Sidecars) -> bool:
    return found.crs is not None and (found.transform is not None or len(found.points) >= 3)


def _merged(own: Sidecars, beside: Sidecars) -> Sidecars:
    """The file's own word first."""
    has_place = own.transform is not None or bool(own.points)
    return Sidecars(
        own.crs or beside.crs,
        own.transform if has_place else beside.transform,
        own.points if has_place else beside.points,
        beside.corners,
    )


def _by_corners(dataset: Any, entry: dict[str, Any], name: str) -> Georeference:
    footprint = Footprint.parse(entry, dataset.width, dataset.height)
    return cornered(footprint.corners, dataset.width, dataset.height, name)


def _what_is_missing(dataset: Any, found: Sidecars, name: str) -> str:
    """A sentence with the fix."""
    if found.crs is not None and found.points:
        return (
            f"{name} has {len(found.points)} tie points, which is too few: give at least three that span it, "
            f"gdal_translate -gcp COLUMN ROW X Y … {name} out.tif"
        )
    if found.transform is not None or found.points:
        return (
            f"{name} has coordinates but does not say of which system{_guess(dataset, found)}. Name it: "
            f"gdal_translate -a_srs EPSG:… {name} out.tif"
        )
    stem = PurePosixPath(name).stem
    if dataset.rpcs is not None:
        return f"{name} is not laid flat (it has RPCs only); first run: gdalwarp -rpc -t_srs EPSG:4326 {name} out.tif"
    return (
        f"{name} does not say where it lies. {HOW_TO_GIVE_CORNERS.format(stem=stem)} Or write it into the file: "
        f"gdal_translate -a_srs EPSG:4326 -a_ullr WEST NORTH EAST SOUTH {name} out.tif"
    )


def _guess(dataset: Any, found: Sidecars) -> str:
    """What the numbers look like; never acted upon."""
    if found.transform is not None:
        t: Affine = found.transform
        x, y, step = t.c, t.f, abs(t.a) + abs(t.b)
    else:
        point: GroundControlPoint = found.points[0]
        x, y, step = point.x, point.y, 0.0
    if abs(x) <= 180 and abs(y) <= 90 and step < 0.01:
        return " (its numbers look like degrees, EPSG:4326)"
    if 100_000 <= x <= 900_000 and 0 <= y <= 10_000_000:
        return " (its numbers look like UTM: EPSG:326 and the zone in the north, EPSG:327 and the zone in the south)"
    if max(abs(x), abs(y)) <= 20_037_509:
        return " (its numbers may be Web Mercator, EPSG:3857, or of a national grid)"
    return ""
