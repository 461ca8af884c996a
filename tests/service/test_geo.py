import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidParameter
from service.geo import (
    MEAN_RADIUS_M,
    Circle,
    haversine_m,
    mercator_tile_bounds,
    offset,
    offset_m,
    union_bounds,
    wrap_east,
    wrap_lon,
)

LATS = st.floats(-90, 90)
LONS = st.floats(-180, 180)


def sphere_distance_m(lat1, lon1, lat2, lon2):
    """Angle between two unit vectors, an independent way to the same distance."""

    def vector(lat, lon):
        phi, lam = math.radians(lat), math.radians(lon)
        return np.array([math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)])

    a, b = vector(lat1, lon1), vector(lat2, lon2)
    return MEAN_RADIUS_M * math.atan2(np.linalg.norm(np.cross(a, b)), a @ b)


@given(LATS, LONS, LATS, LONS)
def test_haversine_equals_angle_between_vectors(lat1, lon1, lat2, lon2):
    # near antipodes the haversine formula keeps 8 digits of the half circumference
    assert haversine_m(lat1, lon1, lat2, lon2) == pytest.approx(sphere_distance_m(lat1, lon1, lat2, lon2), abs=0.5)


def test_haversine_is_precise_for_metres():
    assert haversine_m(24.26, 120.7, 24.26001, 120.7) == pytest.approx(math.radians(1e-5) * MEAN_RADIUS_M, rel=1e-6)


@pytest.mark.parametrize(
    ("lat", "lat_degree_m", "lon_degree_m"),
    # lengths of a degree on WGS84 as published (NGA, "Length of a degree of latitude and longitude")
    [(0, 110574.3, 111319.5), (45, 111131.8, 78846.8), (60, 111412.2, 55800.0)],
)
def test_offset_m_gives_the_published_length_of_a_degree(lat, lat_degree_m, lon_degree_m):
    east_m, north_m = offset_m(lat, 179.995, lat + 0.01, -179.995)
    assert north_m == pytest.approx(lat_degree_m / 100, abs=0.02)
    assert east_m == pytest.approx(lon_degree_m / 100, abs=0.02)


@given(st.floats(-85, 85), LONS, st.floats(-5e4, 5e4), st.floats(-5e4, 5e4))
def test_offset_and_back(lat, lon, east_m, north_m):
    moved = offset(lat, lon, east_m, north_m)
    assert -180 <= moved[1] < 180
    back = offset_m(lat, lon, *moved)
    assert back == pytest.approx((east_m, north_m), abs=1e-3)


def test_offset_takes_arrays():
    lats, lons = offset(np.array([0.0, 60.0]), np.array([10.0, 179.9999]), 100.0, np.array([0.0, 50.0]))
    assert lats.shape == lons.shape == (2,)
    assert lons[1] < -179.99


@given(st.floats(-1000, 1000))
def test_wrapped_longitude_is_the_same_meridian(lon):
    assert -180 <= wrap_lon(lon) < 180
    assert -180 < wrap_east(lon) <= 180
    for wrapped in (wrap_lon(lon), wrap_east(lon)):
        assert math.cos(math.radians(wrapped - lon)) == pytest.approx(1)


PLACES = st.lists(st.tuples(LATS, st.one_of(LONS, st.floats(179.9, 180), st.floats(-180, -179.9))), max_size=30)


@given(
    PLACES,
    st.one_of(LATS, st.sampled_from([-90.0, 90.0, 0.0])),
    st.one_of(LONS, st.sampled_from([-180.0, 180.0])),
    st.floats(1, 1.9e7),
)
def test_circle_contains_what_brute_force_finds(places, lat, lon, radius_m):
    lats, lons = np.array(places, float).reshape(-1, 2).T
    inside = Circle(lat, lon, radius_m).contains(lats, lons)
    for place, found in zip(places, inside, strict=True):
        distance_m = sphere_distance_m(lat, lon, *place)
        if abs(distance_m - radius_m) > 1:  # on the rim either answer is right
            assert found == (distance_m < radius_m)


def test_circle_includes_its_rim():
    rim_m = float(haversine_m(0, 179.9, 0.1, -179.9))
    assert Circle(0, 179.9, rim_m).contains(0.1, -179.9).tolist() == [True]


@pytest.mark.parametrize(
    "values", [(91, 0, 1), (0, 181, 1), (0, 0, 0), (0, 0, -5), (math.nan, 0, 1), (0, 0, math.inf), (0, math.nan, 1)]
)
def test_circle_refuses_values_out_of_range(values):
    with pytest.raises(InvalidParameter, match="give one"):
        Circle(*values)


def test_mercator_tiles_of_the_whole_world():
    assert mercator_tile_bounds(0, 0, 0) == pytest.approx((-180, -85.0511288, 180, 85.0511288))
    assert mercator_tile_bounds(1, 1, 0) == pytest.approx((0, 0, 180, 85.0511288))


@given(st.integers(0, 22), st.floats(-85, 85), st.floats(-180, 179.999))
def test_mercator_tile_holds_the_place_it_is_computed_from(z, lat, lon):
    # the OpenStreetMap wiki's formula, place to tile
    n = 2**z
    x = int((lon + 180) / 360 * n)
    y = int((1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * n)
    west, south, east, north = mercator_tile_bounds(z, x, y)
    assert west - 1e-9 <= lon <= east + 1e-9
    assert south - 1e-9 <= lat <= north + 1e-9


@pytest.mark.parametrize("zxy", [(-1, 0, 0), (31, 0, 0), (3, 8, 0), (3, 0, -1)])
def test_mercator_refuses_tiles_that_do_not_exist(zxy):
    with pytest.raises(InvalidParameter, match="zoom"):
        mercator_tile_bounds(*zxy)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ([(10, -1, 11, 1), (20, -3, 25, 0)], (10, -3, 25, 1)),
        ([(179, 0, -179, 1), (170, 0, 171, 1)], (170, 0, -179, 1)),
        ([(170, 0, 180, 1), (-180, 2, -170, 3)], (170, 0, -170, 3)),
        ([(-180, 0, -179, 1), (179, 0, 180, 1)], (179, 0, -179, 1)),
        ([(5, 0, 50, 1), (10, 0, 20, 1)], (5, 0, 50, 1)),
        ([(-180, 0, -60, 1), (-60, 0, 60, 1), (60, 0, 180, 1)], (-180, 0, 180, 1)),
    ],
)
def test_union_of_bounds(bounds, expected):
    assert union_bounds(np.array(bounds, float)) == pytest.approx(expected)
