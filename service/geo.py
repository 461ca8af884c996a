"""Places on the WGS84 ellipsoid: distances, local metres, circles, Web Mercator tiles.

Angles are degrees, lengths metres, order is ``lat, lon``; only bounds are ``(west, south, east, north)``, and west may
exceed east when they cross the antimeridian. All functions take floats or arrays that broadcast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameter

FloatArray = NDArray[np.float64]
Values = float | FloatArray
Bounds = tuple[float, float, float, float]
LatLon = tuple[float, float]

SEMI_MAJOR_AXIS_M = 6_378_137.0
ECCENTRICITY_SQUARED = 6.694379990141e-3
"""Both numbers are those of WGS84 (NGA.STND.0036, 2014)."""

MEAN_RADIUS_M = 6_371_008.8
"""The mean radius R1 of the WGS84 ellipsoid is that of the usual sphere for haversine distances (IUGG)."""

MAX_MERCATOR_LAT = math.degrees(math.atan(math.sinh(math.pi)))
"""The Web Mercator square ends at 85.0511…°."""

MAX_ZOOM = 30
"""A z=30 tile is 4 cm wide, below any map."""


@dataclass(frozen=True)
class Circle:
    """A circle on the ground, such as a rough prior position.

    Args:
        lat: latitude of the centre, -90 to 90.
        lon: longitude of the centre, -180 to 180.
        radius_m: above zero, at most half the way around the Earth.

    Raises:
        InvalidParameter: a value is outside its range or not finite.
    """

    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        if not abs(self.lat) <= 90:
            raise InvalidParameter(f"The latitude of the circle is {self.lat}; give one between -90 and 90 degrees.")
        if not abs(self.lon) <= 180:
            raise InvalidParameter(f"The longitude of the circle is {self.lon}; give one between -180 and 180 degrees.")
        limit_m = math.pi * MEAN_RADIUS_M
        if not 0 < self.radius_m <= limit_m:
            raise InvalidParameter(f"The radius is {self.radius_m} m; give one above 0 and up to {limit_m:.0f} m.")

    def contains(self, lat: Values, lon: Values) -> NDArray[np.bool_]:
        """Tell which places lie in the circle, its rim included.

        Args:
            lat: latitudes, shape ``[N]``.
            lon: longitudes, shape ``[N]``.

        Returns:
            Booleans, shape ``[N]``.
        """
        lats, lons = np.atleast_1d(np.asarray(lat, float)), np.atleast_1d(np.asarray(lon, float))
        # The latitude band holds the circle and costs one subtraction a place; its margin covers rounding.
        inside = np.abs(lats - self.lat) <= math.degrees(self.radius_m / MEAN_RADIUS_M) + 1e-9
        band = np.flatnonzero(inside)
        inside[band] = haversine_m(self.lat, self.lon, lats[band], lons[band]) <= self.radius_m
        return inside


def wrap_lon(lon: Values) -> FloatArray:
    """Bring longitudes, or differences of longitudes, into -180 (included) to 180 (excluded)."""
    return np.asarray((lon + 180.0) % 360.0 - 180.0)[()]


def wrap_east(lon: float) -> float:
    """Wrap as :func:`wrap_lon` does, for the east edge of bounds: an edge on the antimeridian stays at +180."""
    return 0.0 - float(wrap_lon(-lon))


def haversine_m(lat1: Values, lon1: Values, lat2: Values, lon2: Values) -> FloatArray:
    """Return the great-circle distance on the mean sphere, in metres; within 0.6 % of the ellipsoid's geodesic.

    Formula: R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984).
    """
    phi1, phi2 = np.radians(lat1), np.radians(lat2)
    half_lat, half_lon = (phi2 - phi1) / 2, np.radians(wrap_lon(np.subtract(lon2, lon1))) / 2
    square = np.sin(half_lat) ** 2 + np.cos(phi1) * np.cos(phi2) * np.sin(half_lon) ** 2
    return np.asarray(2 * MEAN_RADIUS_M * np.arcsin(np.sqrt(np.minimum(square, 1.0))))[()]


def metres_per_degree(lat: Values) -> tuple[FloatArray, FloatArray]:
    """Return metres of a degree of longitude and of latitude at ``lat``, from the ellipsoid's radii of curvature."""
    phi = np.radians(lat)
    w = 1.0 - ECCENTRICITY_SQUARED * np.sin(phi) ** 2
    prime_vertical_m = SEMI_MAJOR_AXIS_M / np.sqrt(w)
    meridian_m = SEMI_MAJOR_AXIS_M * (1.0 - ECCENTRICITY_SQUARED) / w**1.5
    return np.radians(prime_vertical_m * np.cos(phi)), np.radians(meridian_m)


def offset(lat: Values, lon: Values, east_m: Values, north_m: Values) -> tuple[FloatArray, FloatArray]:
    """Move places by metres east and north in the plane that touches the ellipsoid there.

    Good to 0.1 % over 10 km below 80° of latitude. Near a pole "east" loses its meaning, and a latitude past ±90 comes
    back as it is: callers that take places from users check the range.

    Returns:
        ``(lat, lon)``; the longitude is wrapped.
    """
    lon_m, lat_m = metres_per_degree(lat)
    return np.asarray(lat + north_m / lat_m)[()], wrap_lon(lon + east_m / lon_m)


def offset_m(lat0: Values, lon0: Values, lat: Values, lon: Values) -> tuple[FloatArray, FloatArray]:
    """Return metres ``(east, north)`` from the first place to the second; the inverse of :func:`offset`."""
    lon_m, lat_m = metres_per_degree(lat0)
    return wrap_lon(np.subtract(lon, lon0)) * lon_m, np.subtract(lat, lat0) * lat_m


def mercator_tile_bounds(z: int, x: int, y: int) -> Bounds:
    """Return bounds ``(west, south, east, north)`` of a Web Mercator tile, y counted from the north (the "XYZ" scheme).

    Raises:
        InvalidParameter: no such tile.
    """
    if not 0 <= z <= MAX_ZOOM:
        raise InvalidParameter(f"The zoom level is {z}; give one between 0 and {MAX_ZOOM}.")
    n = 2**z
    if not (0 <= x < n and 0 <= y < n):
        raise InvalidParameter(f"There is no tile {z}/{x}/{y}; at zoom {z}, x and y run from 0 to {n - 1}.")

    def lat_of(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / n))))

    return x / n * 360 - 180, lat_of(y + 1), (x + 1) / n * 360 - 180, lat_of(y)


def union_bounds(bounds: FloatArray) -> Bounds:
    """Join bounds to the smallest that hold all; they cross the antimeridian when that is the shorter way round.

    Args:
        bounds: ``[west, south, east, north]`` rows, shape ``[N, 4]``, N at least 1.
    """
    west, south, east, north = bounds[np.argsort(bounds[:, 0], kind="stable")].T
    reach = np.maximum.accumulate(west + (east - west) % 360.0)  # how far east the first i intervals go
    # Gap i lies before interval i; gap 0 is the one over the antimeridian and wins ties.
    gaps = np.append(west[0] + 360.0 - reach[-1], west[1:] - reach[:-1])
    start = int(np.argmax(gaps))
    if gaps[start] <= 0:
        return -180.0, float(south.min()), 180.0, float(north.max())
    end = float(reach[start - 1])  # start 0: the last one
    return float(west[start]), float(south.min()), wrap_east(end), float(north.max())
