"""A circle prior gives the answer of brute force over all tile centres, anywhere on Earth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.geo import MEAN_RADIUS_M, Circle
from service.ground.index.exact import FaissIndex
from service.ground.index.protocol import NO_ID

DIM = 8
LONS = st.one_of(st.floats(-180, 180), st.sampled_from([-180.0, 180.0, 179.9999, -179.9999, 0.0]))
LATS = st.one_of(st.floats(-90, 90), st.sampled_from([90.0, -90.0, 89.999, -89.999, 0.0]))
RADII = st.floats(0, 6).map(lambda exponent: 10**exponent)  # 1 m to 1000 km, as the form allows


def vector(lat, lon):
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


def distance_m(lat, lon, centres):
    """Great-circle distance from the angle between unit vectors: no haversine, no wrapped longitude."""
    one, others = vector(lat, lon), vector(centres[:, 0], centres[:, 1])
    return MEAN_RADIUS_M * np.arctan2(np.linalg.norm(np.cross(one, others), axis=1), others @ one)


def around(rng, lat, lon, radius_m, count):
    """Places up to twice the radius from a place in all directions, along great circles."""
    start = vector(lat, lon)
    north = np.array([-math.sin(math.radians(lat)) * c for c in start_east(lon)] + [math.cos(math.radians(lat))])
    east = np.cross(north, start)
    angle = rng.uniform(0, 2, count) * radius_m / MEAN_RADIUS_M
    bearing = rng.uniform(0, 2 * math.pi, count)
    heading = np.cos(bearing)[:, None] * north + np.sin(bearing)[:, None] * east
    x, y, z = (np.cos(angle)[:, None] * start + np.sin(angle)[:, None] * heading).T
    return np.column_stack([np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))])


def start_east(lon):
    return math.cos(math.radians(lon)), math.sin(math.radians(lon))


@settings(deadline=None, max_examples=150)
@given(LATS, LONS, RADII, st.integers(0, 2**32))
def test_a_circle_holds_what_brute_force_finds(lat, lon, radius_m, seed):
    rng = np.random.default_rng(seed)
    anywhere = np.column_stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 40))), rng.uniform(-180, 180, 40)])
    centres = np.vstack([around(rng, lat, lon, radius_m, 60), anywhere, [[90, 0], [-90, 10], [lat, lon]]])
    distances = distance_m(lat, lon, centres)
    centres = centres[np.abs(distances - radius_m) > 0.01]  # on the rim itself rounding may decide: a centimetre
    vectors = rng.normal(size=(len(centres), DIM))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    index, area, query = FaissIndex(DIM), Circle(lat, lon, radius_m), vectors[:1].astype(np.float32)
    index.upsert(np.arange(len(centres)), vectors, centres)

    inside = np.flatnonzero(distance_m(lat, lon, centres) <= radius_m)
    lengths = np.linalg.norm(vectors[inside].astype(float), axis=1)
    scores = vectors[inside].astype(float) @ query[0].astype(float) / lengths
    found_scores, found = index.search(query, len(centres), area)
    assert index.count(area) == len(inside)
    assert set(found[0][found[0] != NO_ID]) == set(inside)
    np.testing.assert_allclose(found_scores[0][: len(inside)], np.sort(scores)[::-1], atol=1e-6)


def test_a_circle_over_a_pole_reaches_the_other_side():
    centres = np.array([[89.99, 0.0], [89.99, 180.0], [89.99, -90.0], [89.9, 180.0]])
    assert Circle(89.99, 0.0, 2300).contains(centres[:, 0], centres[:, 1]).tolist() == [True, True, True, False]


def test_a_circle_on_the_antimeridian_reaches_the_other_side():
    assert Circle(0.0, 180.0, 200).contains(np.zeros(3), np.array([179.999, -179.999, -179.99])).tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("lon", [180.0, -180.0])
def test_both_names_of_the_antimeridian_are_one(lon):
    assert Circle(10.0, lon, 1.0).contains(10.0, -lon).all()
