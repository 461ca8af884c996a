import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidFootprint, InvalidParameter
from service.geo import haversine_m, mercator_tile_bounds, offset
from service.ground.tile import Footprint, Tile, stable_id

LATS, LONS = st.floats(-84, 84), st.floats(-180, 180)
NORTH_UP = [(1.001, 2.0), (1.001, 2.001), (1.0, 2.001), (1.0, 2.0)]


@given(LATS, LONS, st.floats(0.02, 10), st.integers(64, 1000), st.integers(64, 1000))
def test_centre_form_round_trips(lat, lon, gsd_m, width_px, height_px):
    footprint = Footprint.from_centre(lat, lon, gsd_m, width_px, height_px)
    assert footprint.centre[0] == pytest.approx(lat, abs=1e-9)
    assert math.remainder(footprint.centre[1] - lon, 360) == pytest.approx(0, abs=1e-9)
    assert footprint.gsd_m == pytest.approx(gsd_m, rel=1e-4)
    assert footprint.side_m == pytest.approx(gsd_m * math.sqrt(width_px * height_px), rel=1e-4)


@given(LATS, LONS, st.floats(1e-4, 0.5), st.floats(1e-4, 0.5))
def test_bounds_form_round_trips_also_over_the_antimeridian(s, w, height, width):
    e = w + width if w + width <= 180 else w + width - 360
    footprint = Footprint.from_bounds(w, s, e, s + height, 100, 100)
    west, south, east, north = footprint.bounds
    assert (south, north) == (s, s + height)
    assert math.remainder(west - w, 360) == pytest.approx(0, abs=1e-9)
    assert math.remainder(east - e, 360) == pytest.approx(0, abs=1e-9)
    assert footprint.centre[0] == pytest.approx(s + height / 2)


def test_crossing_the_antimeridian():
    footprint = Footprint.from_bounds(179.999, -0.001, -179.999, 0.001, 10, 10)
    assert footprint.bounds == pytest.approx((179.999, -0.001, -179.999, 0.001))
    assert abs(footprint.centre[1]) == pytest.approx(180)
    assert footprint.side_m == pytest.approx(222, abs=1)


def test_an_east_edge_on_the_antimeridian_stays_east():
    assert Footprint.from_bounds(179.99, 0, 180, 0.01, 10, 10).bounds == pytest.approx((179.99, 0, 180, 0.01))


@given(LATS, LONS, st.floats(10, 2000), st.floats(0, 360))
def test_a_turned_square_keeps_its_side_and_centre(lat, lon, side_m, turn_deg):
    angles = np.radians(turn_deg + np.array([-45, 45, 135, 225]))
    lats, lons = offset(lat, lon, side_m / math.sqrt(2) * np.sin(angles), side_m / math.sqrt(2) * np.cos(angles))
    footprint = Footprint.from_corners(np.column_stack([lats, lons]).tolist(), 256, 256)
    assert footprint.side_m == pytest.approx(side_m, rel=1e-3)
    assert footprint.gsd_m == pytest.approx(side_m / 256, rel=1e-3)
    assert haversine_m(*footprint.centre, lat, lon) < side_m / 1000


def test_zxy_is_the_mercator_tile():
    bounds = mercator_tile_bounds(18, 219000, 112000)
    footprint = Footprint.parse({"z": 18, "x": 219000, "y": 112000}, 256, 256)
    assert footprint.bounds == pytest.approx(bounds)
    # the scale of Web Mercator shrinks with the cosine of the latitude
    expected_m = 2 * math.pi * 6378137 / 2**18 / 256 * math.cos(math.radians(footprint.centre[0]))
    assert footprint.gsd_m == pytest.approx(expected_m, rel=0.005)


@pytest.mark.parametrize(
    "entry",
    [
        {"bounds": [2.0, 1.0, 2.001, 1.001]},
        {"corners": [list(corner) for corner in NORTH_UP], "id": "a", "properties": {}},
        {"lat": 1.0005, "lon": 2.0005, "gsd_m": 1.11},
    ],
)
def test_parse_takes_each_form(entry):
    footprint = Footprint.parse(entry, 100, 100)
    assert footprint.centre == pytest.approx((1.0005, 2.0005))
    assert footprint.side_m == pytest.approx(111, rel=0.01)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "exactly one"),
        ({"bounds": [0, 0, 1, 1], "lat": 1}, "exactly one"),
        ({"lat": 1, "lon": 2}, "lacks gsd_m"),
        ({"z": 3}, "lacks x, y"),
        ({"z": 18, "x": 1.5, "y": 1}, "whole numbers"),
        ({"z": 2, "x": 9, "y": 0}, "no tile 2/9/0"),
        ({"z": 0, "x": 0, "y": 0}, "west"),
        ({"z": 3, "x": 0, "y": 3}, "side"),
        ({"bounds": [0, 0, 1]}, "4 finite numbers"),
        ({"bounds": "0,0,1,1"}, "4 finite numbers"),
        ({"bounds": [0, 0, True, 1]}, "4 finite numbers"),
        ({"bounds": [0, 0, math.nan, 1]}, "4 finite numbers"),
        ({"bounds": [0, 0, 10**400, 1]}, "4 finite numbers"),
        ({"bounds": [0, 1, 1, 0]}, "south must be below north"),
        ({"bounds": [1, 0, 1, 1]}, "west"),
        ({"corners": [[0, 0]]}, "four"),
        ({"corners": [[0, 0], [0, 1], [1], [1, 1]]}, "2 finite numbers"),
        ({"lat": 1, "lon": 2, "gsd_m": 0}, "gsd_m"),
        ({"lat": 1, "lon": 2, "gsd_m": -1}, "gsd_m"),
        ({"lat": 1, "lon": 2, "gsd_m": 1e-3}, "side"),
        ({"lat": 1, "lon": 2, "gsd_m": 1e300}, "gsd_m"),
        ({"lat": 120.7, "lon": 24.2, "gsd_m": 1}, r"latitude is 120\.7.*order: lat, lon"),
        ({"lat": 1, "lon": 200, "gsd_m": 1}, "longitude is 200"),
        ({"corners": [[1, 0], [1, 100], [0, 100], [0, 0]]}, "90°"),
    ],
)
def test_parse_says_what_is_wrong(entry, says):
    with pytest.raises(InvalidFootprint, match=says):
        Footprint.parse(entry, 100, 100)


@pytest.mark.parametrize(
    ("order", "seen"),
    [([1, 0, 3, 2], "counter-clockwise"), ([0, 1, 3, 2], "cross"), ([0, 2, 1, 3], "cross"), ([0, 1, 1, 2], "line")],
)
def test_wrong_order_says_which_is_expected_and_what_was_seen(order, seen):
    with pytest.raises(InvalidFootprint, match=f"top-left, top-right, bottom-right, bottom-left.*{seen}"):
        Footprint.from_corners([NORTH_UP[i] for i in order], 100, 100)


def test_a_corner_that_points_inwards_is_refused():
    with pytest.raises(InvalidFootprint, match="not convex"):
        Footprint.from_corners([*NORTH_UP[:2], (1.0008, 2.0003), NORTH_UP[3]], 100, 100)


def test_images_may_be_turned():
    turned = Footprint.from_corners(NORTH_UP[2:] + NORTH_UP[:2], 100, 100)
    assert turned.corners[0] == NORTH_UP[2]


@pytest.mark.parametrize("tile_id", ["a", "fengyuan/r03c07", "台中 7", "x" * 200, "a..b/.c/..."])
def test_good_ids(tile_id):
    assert Tile(tile_id, Footprint.from_corners(NORTH_UP, 9, 9)).id == tile_id


@pytest.mark.parametrize("tile_id", ["..", ".", "a/../b", "a/./b", "../a", "a/..", "/a", "a/", "a//b"])
def test_parts_that_addresses_lose_are_in_no_id(tile_id):
    with pytest.raises(InvalidParameter, match="addresses lose them"):
        Tile(tile_id, Footprint.from_corners(NORTH_UP, 9, 9))


@pytest.mark.parametrize("tile_id", ["", "x" * 201, "a\nb", "a\0", "\x7f", "\ud800", 7])
def test_bad_ids(tile_id):
    with pytest.raises(InvalidParameter, match="1 to 200 printable"):
        Tile(tile_id, Footprint.from_corners(NORTH_UP, 9, 9))


def lists(levels):
    """So many lists inside each other."""
    return [lists(levels - 1)] if levels > 1 else []


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"a": math.nan}, "a JSON object"),
        ({"a": object()}, "a JSON object"),
        (7, "a JSON object"),
        ({"a": "x" * 20_000}, "the limit is 16384"),
        ({"a": "\ud800"}, "half a character"),
        ({"\udfff": 1}, "half a character"),
        ({"a": lists(32)}, "over 32 deep"),
        ({"a": lists(900)}, "over 32 deep"),
    ],
)
def test_bad_properties(properties, says):
    with pytest.raises(InvalidParameter, match=f"properties of tile 'a' .*{says}"):
        Tile("a", Footprint.from_corners(NORTH_UP, 9, 9), properties)


@pytest.mark.parametrize("properties", [{}, {"高さ": "灯台🚀" * 800}, {"a": lists(31)}, {"a": [{"b": 2.5}]}])
def test_good_properties(properties):
    assert Tile("a", Footprint.from_corners(NORTH_UP, 9, 9), properties).properties == properties


def test_stable_id_depends_on_content_and_ground_only():
    here, there = (Footprint.from_centre(lat, 2, 1, 100, 100) for lat in (1.0, 1.1))
    assert stable_id(b"image", here) == stable_id(b"image", Footprint.from_centre(1.0, 2, 1, 100, 100))
    assert len({stable_id(b"image", here), stable_id(b"other", here), stable_id(b"image", there)}) == 3
    assert Tile(stable_id(b"image", here), here)
