"""The ground's heights: rays that end on it, and what a camera's height is above it."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.camera.pose import Prior, solve_pose
from service.geo import offset, offset_m
from service.ground.elevation import Elevation, Grid
from service.localization.terrain import Terrain, level_m

ORIGIN = (24.26, 120.71)
FOCAL = 0.5 / math.tan(math.radians(70) / 2)
CAMERA = (30.0, -20.0, 110.0)  # east, north, above the ground at the photo's centre


def hills(east_m, north_m):
    return 300 + 9 * np.sin(east_m / 60) + 7 * np.cos(north_m / 50) + 0.05 * north_m


@pytest.fixture
def elevation():
    """The hills around the origin, on points 5 m apart."""
    north, west = offset(*ORIGIN, -500.0, 500.0)
    step_lat, step_lon = (north - ORIGIN[0]) / 100, (ORIGIN[1] - west) / 100
    rows, columns = np.mgrid[0:201, 0:201]
    east_m, north_m = offset_m(*ORIGIN, north - rows * step_lat, west + columns * step_lon)
    heights = hills(east_m, north_m).astype(np.float32)
    grid = Grid("dem.tif", float(west), float(north), step_lon, step_lat, heights.min(), heights.max(), 1.0)
    return Elevation(grid, heights)


def cast(attitude, photo, base_m):
    """Where rays of the photo meet the hills, by bisection."""
    right, down, forward = attitude.matrix.T
    rays = np.outer(right, photo.real) - np.outer(down, photo.imag) + FOCAL * forward[:, None]
    near, far = np.zeros(len(photo)), np.full(len(photo), 2000.0)
    for _ in range(60):
        middle = (near + far) / 2
        ground = hills(CAMERA[0] + middle * rays[0], CAMERA[1] + middle * rays[1]) - base_m
        above = CAMERA[2] + middle * rays[2] > ground
        near, far = np.where(above, middle, near), np.where(above, far, middle)
    return CAMERA[0] + near * rays[0] + 1j * (CAMERA[1] + near * rays[1])


@dataclass
class Laid:
    """As much of a fix as the ground's heights need."""

    lat: float
    lon: float
    origin: tuple[float, float]
    ground_m: np.ndarray


@pytest.fixture
def seen():
    """Matches of a photo at 45°: positions, the ground, the fix, and the attitude."""
    rng = np.random.default_rng(2)
    attitude = Attitude.of_angles(70.0, -45.0)
    base_m = 300.0
    for _ in range(50):  # the height of the ground at the photo's centre, from which the camera's counts
        centre = cast(attitude, np.zeros(1, np.complex128), base_m)[0]
        base_m += 0.5 * (hills(centre.real, centre.imag) - base_m)
    photo = rng.uniform(-0.45, 0.45, 200) + 1j * rng.uniform(-0.3, 0.3, 200)
    ground = cast(attitude, photo, base_m)
    lat, lon = offset(*ORIGIN, centre.real, centre.imag)
    return photo, ground, Laid(float(lat), float(lon), ORIGIN, ground), attitude, complex(centre)


def test_a_pose_over_known_hills_is_right(elevation, seen):
    photo, ground, fix, attitude, centre = seen
    terrain = Terrain.around(fix, elevation)
    prior = Prior(attitude, 0.3, 0.3, FOCAL, 0.03)
    start = centre, complex(math.cos(math.radians(70)), -math.sin(math.radians(70))) * CAMERA[2] * math.sqrt(2) / FOCAL
    tolerance = np.full(200, 3.0)
    level = solve_pose(photo, ground, tolerance, prior, start)
    known = solve_pose(photo, ground, tolerance, prior, start, terrain.rise_m(fix))
    off = [math.hypot(pose.east_m - CAMERA[0], pose.north_m - CAMERA[1]) for pose in (level, known)]
    assert off[1] < 0.5 < 2 * off[1] + 1 < off[0]
    assert known.height_m == pytest.approx(CAMERA[2], abs=0.5)


@dataclass
class Looking:
    """As much of a camera as its footprint needs."""

    lat: float
    lon: float
    heading_deg: float
    pitch_deg: float
    roll_deg: float


def test_corners_lie_where_their_rays_meet_the_ground(elevation, seen):
    *_, fix, attitude, _ = seen
    terrain = Terrain.around(fix, elevation)
    camera = Looking(*map(float, offset(*ORIGIN, *CAMERA[:2])), 70.0, -45.0, 0.0)
    corners = terrain.footprint(camera, CAMERA[2], 70.0, 0.6)
    expected = cast(attitude, np.array([-0.5 + 0.3j, 0.5 + 0.3j, 0.5 - 0.3j, -0.5 - 0.3j]), terrain.centre_m)
    for corner, place in zip(corners, expected, strict=True):
        assert offset_m(*ORIGIN, *corner) == pytest.approx((place.real, place.imag), abs=1.0)
    up = Looking(camera.lat, camera.lon, 70.0, -5.0, 0.0)
    assert terrain.footprint(up, CAMERA[2], 70.0, 0.6)[:2] == [None, None]


def test_too_little_known_ground_is_a_plane(elevation, seen):
    fix = seen[2]
    far = Laid(fix.lat, fix.lon, fix.origin, fix.ground_m + 450)
    assert Terrain.around(fix, None) is None
    assert Terrain.around(far, elevation) is None
    assert Terrain.around(Laid(25.0, 121.0, fix.origin, fix.ground_m), elevation) is None


def test_the_ground_under_a_gps_altitude(elevation):
    assert level_m([elevation.grid], 400.0) is None  # it ranges over half of the height above it
    assert level_m([elevation.grid], 700.0) == pytest.approx(300, abs=5)
    assert level_m([], 700.0) is None
