"""What the heights of the ground change: where rays of a photo end, and how high the camera is above it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from service.camera.attitude import Attitude
from service.camera.pinhole import Floats, Pinhole, corners
from service.geo import Circle, offset
from service.ground.elevation import Elevation, Grid, is_near
from service.ground.gallery import Gallery
from service.ground.maps import GroundMap
from service.localization.refine import Fix

if TYPE_CHECKING:
    from service.localization.whereabouts import Camera

KNOWN_SHARE = 0.9
"""With a smaller share of a photo's matches on known heights, its ground counts as a plane."""

STEPS = 400
"""So many places along a ray are looked at; between two of them the ground counts as straight."""

FAR_HEIGHTS = 20.0
"""A ray that has met no ground after so many heights of the camera meets none."""

LEVEL_SHARE = 0.25
"""Ground whose heights range over more than this share of a camera's height above them does not tell that height."""


@dataclass(frozen=True, eq=False)
class Terrain:
    """The ground under a photo.

    Attributes:
        elevation: its heights.
        centre_m: height at the photo's centre.
    """

    elevation: Elevation
    centre_m: float

    SIGMA_M: ClassVar[float] = 2.0
    """Heights of the ground are off by this against the map: surface and terrain models differ by trees and roofs."""

    @classmethod
    def around(cls, fix: Fix, elevation: Elevation | None) -> Terrain | None:
        """Return the ground that a photo lies on; None where too little of it is known."""
        if elevation is None:
            return None
        centre_m = float(elevation.at(fix.lat, fix.lon))
        terrain = cls(elevation, centre_m)
        known = np.isfinite(elevation.at(*_places(fix)))
        return terrain if math.isfinite(centre_m) and known.mean() >= KNOWN_SHARE else None

    def rise_m(self, fix: Fix) -> Floats:
        """Tell how much higher the ground is at each match than at the photo's centre; 0 where nobody knows."""
        rise: Floats = np.nan_to_num(np.asarray(self.elevation.at(*_places(fix))) - self.centre_m)
        return rise

    def footprint(
        self, camera: Camera, height_m: float, hfov_deg: float, aspect: float
    ) -> list[tuple[float, float] | None]:
        """Tell where the photo's corners lie, clockwise from its top left: where their rays first meet the ground.

        Beyond what is known the ground is as high as at the photo's centre. None for one that meets none.
        """
        attitude = Attitude.of_angles(camera.heading_deg, camera.pitch_deg, camera.roll_deg)
        focal = Pinhole(attitude, hfov_deg, aspect).focal_widths
        right, down, forward = attitude.matrix.T
        found: list[tuple[float, float] | None] = []
        for corner in corners(aspect).tolist():
            ray = corner.real * right - corner.imag * down + focal * forward
            found.append(self._meets(camera, height_m, ray / np.linalg.norm(ray)))
        return found

    def _meets(self, camera: Camera, height_m: float, ray: Floats) -> tuple[float, float] | None:
        along_m = np.geomspace(0.05, FAR_HEIGHTS, STEPS) * height_m
        lat, lon = offset(camera.lat, camera.lon, along_m * ray[0], along_m * ray[1])
        ground_m = np.nan_to_num(np.asarray(self.elevation.at(lat, lon)) - self.centre_m)
        above_m = height_m + along_m * ray[2] - ground_m
        below = np.flatnonzero(above_m <= 0)
        if not len(below) or below[0] == 0:
            return None
        i = int(below[0])
        share = above_m[i - 1] / (above_m[i - 1] - above_m[i])
        end_m = along_m[i - 1] + share * (along_m[i] - along_m[i - 1])
        lat, lon = offset(camera.lat, camera.lon, float(end_m * ray[0]), float(end_m * ray[1]))
        return float(lat), float(lon)


def level_m(grids: Sequence[Grid], above_sea_m: float) -> float | None:
    """Tell how high the ground is under a camera of unknown place: the middle, if all is level enough to tell.

    Args:
        grids: of the maps that are searched.
        above_sea_m: the camera's height above the sea.
    """
    if not grids:
        return None
    low_m, high_m = min(each.low_m for each in grids), max(each.high_m for each in grids)
    middle_m = (low_m + high_m) / 2
    return middle_m if high_m - low_m <= LEVEL_SHARE * (above_sea_m - middle_m) else None


def ground_m(gallery: Gallery, maps: Sequence[str], prior: Circle | None, above_sea_m: float) -> float | None:
    """Tell how high the ground is under a camera ``above_sea_m``; with a prior, there.

    Args:
        gallery: has the heights.
        maps: names of those that are searched; none given: all.
        prior: where the camera looks.
        above_sea_m: the camera's height above the sea.
    """
    if prior is not None:
        elevation = elevation_at(gallery, prior.lat, prior.lon, maps)
        return None if elevation is None else float(elevation.at(prior.lat, prior.lon))
    grids = (gallery.maps.elevation_grid(known) for known in _searched(gallery, maps))
    return level_m([grid for grid in grids if grid is not None], above_sea_m)


def elevation_at(gallery: Gallery, lat: float, lon: float, maps: Sequence[str] = ()) -> Elevation | None:
    """Return the heights of the ground at a place: those of the first map (of ``maps``, if given) that has some."""
    near = (known for known in _searched(gallery, maps) if is_near(known.bounds, lat, lon))
    for elevation in map(gallery.maps.elevation, near):
        if elevation is not None and math.isfinite(float(elevation.at(lat, lon))):
            return elevation
    return None


def _searched(gallery: Gallery, maps: Sequence[str]) -> list[GroundMap]:
    return [gallery.maps.get(name) for name in maps] if maps else gallery.maps.all()


def _places(fix: Fix) -> tuple[Floats, Floats]:
    lat, lon = offset(*fix.origin, fix.ground_m.real, fix.ground_m.imag)
    return np.asarray(lat), np.asarray(lon)
