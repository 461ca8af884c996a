from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from service.camera.attitude import Attitude
from service.camera.look import Look, look_of
from service.camera.pinhole import Pinhole, corners, similarity_matrix
from service.encoder.calibration import MIN_INLIERS
from service.geo import haversine_m, offset_m
from service.ground.records import Hit
from service.ground.tile import Footprint, Tile
from service.imaging.view import make_view
from service.localization.neighbours import same_place
from service.localization.refine import footprint_of, matched_position, weighted_position
from service.localization.rerank import Seen, unmatched

ORIGIN = (24.26, 120.72)


def test_one_tile_gives_its_centre(hit):
    assert weighted_position([hit(0.9)], 0.05) == pytest.approx(ORIGIN, abs=1e-9)


def test_two_equal_neighbours_give_the_middle(hit):
    east, north = offset_m(*ORIGIN, *weighted_position([hit(0.8), hit(0.8, 50, 20)], 0.05))
    assert (east, north) == pytest.approx((25, 10), abs=0.01)


def test_far_candidates_have_no_weight(hit):
    near = [hit(0.8), hit(0.7, 50)]
    assert weighted_position([*near, hit(0.79, 111)], 0.05) == weighted_position(near, 0.05)


@given(
    st.lists(st.tuples(st.floats(-60, 60), st.floats(-60, 60), st.floats(-1, 1)), min_size=1, max_size=8),
    st.floats(0.01, 1),
)
def test_the_position_is_the_softmax_mean(hit, places, temperature):
    places = sorted(places, key=lambda place: -place[2])
    hits = [hit(score, east, north) for east, north, score in places]
    best_lat, best_lon = hits[0].tile.footprint.centre
    total = expected_east = expected_north = 0.0
    for each in hits:
        lat, lon = each.tile.footprint.centre
        if haversine_m(best_lat, best_lon, lat, lon) <= 1.1 * hits[0].tile.footprint.side_m:
            weight = np.exp(each.score / temperature)
            east, north = offset_m(best_lat, best_lon, lat, lon)
            total, expected_east, expected_north = (
                total + weight,
                expected_east + weight * east,
                expected_north + weight * north,
            )
    east, north = offset_m(best_lat, best_lon, *weighted_position(hits, temperature))
    assert (east, north) == pytest.approx((expected_east / total, expected_north / total), abs=0.01)


@pytest.mark.parametrize("two_steps", [(100, 0), (0, 100)])
def test_the_tile_two_half_steps_on_is_of_the_same_place(hit, two_steps):
    assert same_place([hit(0.9), hit(0.8, *two_steps)]).all()


def test_same_place_is_a_little_over_one_tile_side(hit):
    near = same_place([hit(0.9), hit(0.8, 109), hit(0.7, 218)])
    np.testing.assert_array_equal(near, [[True, True, False], [True, True, True], [False, True, True]])


# --- with local descriptors ---------------------------------------------------------------------------------------

CELL_M = 100 / 24


def laid(rank, hits, photo, maps, calibration):
    """Where the photo lies: metres east + i·north of the origin, its heading, and the whole fix."""
    ranking = rank(hits, photo, maps, calibration)
    fix = matched_position(ranking, calibration.local.min_inliers)
    return complex(*offset_m(*ORIGIN, fix.lat, fix.lon)), fix.heading_deg, fix


def apart_deg(one, other):
    return abs((one - other + 180) % 360 - 180)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 360), st.floats(60, 180), st.floats(-40, 40), st.floats(-40, 40), st.floats(-360, 360))
def test_position_and_heading_are_those_of_the_photo(
    rank, hit, calibration, tile_map, photo_map, heading, side_m, east, north, turned
):
    """Windows overlap by half, so that some window's centre is within 25 m each way; at 50 m, too little is in view."""
    hits = [hit(0.9)]
    turn = np.exp(1j * np.radians(turned))  # the square's top lies so far to the left of the photo's
    look = Look(similarity_matrix(complex(turn), 0j), 1.5)
    photo = replace(photo_map(complex(east, north), heading, side_m), look=look)
    position, seen_deg, fix = laid(rank, hits, photo, [tile_map(hits[0])], calibration)
    assert abs(position - complex(east, north)) < CELL_M
    assert apart_deg(seen_deg, heading + turned) < 4
    assert 0 <= seen_deg < 360
    assert abs(fix.steps_m(look)[0]) == pytest.approx(side_m, rel=0.06)


@pytest.mark.parametrize("heading", [10, 80, 130, 200, 285, 340])
def test_descriptors_that_know_small_turns_only_are_tried_in_four(rank, hit, calibration, tile_map, photo_map, heading):
    """The photo's content, turned left by k quarters, faces 90° · k further: noise beyond 50° from north."""
    seen = photo_map(15 - 10j, heading, 90)
    level, noise = seen.local[0], photo_map(15 - 10j, heading, 90, seed=7).local[0]
    facing = [(heading + 90 * k + 180) % 360 - 180 for k in range(4)]
    assert sum(abs(each) <= 50 for each in facing) in {1, 2}
    turns = [np.rot90(level if abs(facing[k]) <= 50 else noise, k, axes=(1, 2)) for k in range(4)]
    hits = [hit(0.9)]
    position, seen_deg, fix = laid(rank, hits, replace(seen, local=np.stack(turns)), [tile_map(hits[0])], calibration)
    assert abs(position - (15 - 10j)) < 1
    assert abs((seen_deg - heading + 180) % 360 - 180) < 2
    assert fix.inliers > 100


@pytest.mark.parametrize("centre", [50 + 50j, 50 + 0j, 40 - 60j])
def test_a_photo_across_borders_has_matches_on_all_sides(rank, hit, calibration, tile_map, photo_map, centre):
    """Four tiles that touch and do not overlap; the photo shows a part of each."""
    hits = [hit(0.9 - i / 100, east, north) for i, (east, north) in enumerate([(0, 0), (100, 0), (0, 100), (100, 100)])]
    hits += [hit(0.8, 0, -100), hit(0.79, 100, -100)]
    photo, maps = photo_map(centre, 77), [*map(tile_map, hits)]
    position, heading, fix = laid(rank, hits, photo, maps, calibration)
    assert abs(position - centre) < 0.3 * CELL_M
    assert apart_deg(heading, 77) < 1
    alone = rank(hits, photo, maps, calibration).hits[0].inliers
    assert fix.inliers > 1.3 * alone


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 360, exclude_max=True))
def test_a_photo_is_laid_as_exactly_wherever_windows_end(
    rank, hit, calibration, tile_map, photo_map, east_m, north_m, heading
):
    """Windows overlap by half, as a map's; the photo is moved from the middle of one, over its borders, to the next."""
    hits = [hit(0.9 - i / 100, 50 * (i % 2), 50 * (i // 2)) for i in range(4)]
    photo = photo_map(complex(east_m, north_m), heading)
    position, seen_deg, _ = laid(rank, hits, photo, [*map(tile_map, hits)], calibration)
    assert abs(position - complex(east_m, north_m)) < 0.3 * CELL_M
    assert apart_deg(seen_deg, heading) < 1


def test_inliers_are_positions_of_the_photo_however_many_tiles_show_them(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9 - i / 100, 25 * (i % 3), 25 * (i // 3)) for i in range(9)]
    _, _, fix = laid(rank, hits, photo_map(25 + 25j), [*map(tile_map, hits)], calibration)
    assert 300 < fix.inliers <= 24 * 24


def test_tiles_of_two_sizes_count_together(rank, hit, calibration, tile_map, photo_map):
    large = Hit(Tile("large", Footprint.from_centre(*ORIGIN, 2.0, 100, 100)), 0.8)
    hits = [hit(0.9), large]
    position, _, _ = laid(rank, hits, photo_map(10 + 20j, 10), [*map(tile_map, hits)], calibration)
    assert abs(position - (10 + 20j)) < 0.3 * CELL_M


def test_other_ground_is_not_laid_anywhere(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9), hit(0.8, 50)]
    ranking = rank(hits, photo_map(seed=5), [*map(tile_map, hits)], calibration)
    assert matched_position(ranking, MIN_INLIERS) is None
    assert matched_position(unmatched(hits, calibration), MIN_INLIERS) is None


def test_as_much_support_as_the_model_file_asks_for(rank, hit, calibration, tile_map, photo_map):
    ranking = rank([hit(0.9)], photo_map(), [tile_map(hit(0.9))], calibration)
    inliers, support = ranking.hits[0].inliers, ranking.supports[0]
    assert matched_position(ranking, support - 1e-6).inliers == inliers
    assert matched_position(ranking, support + 1) is None
    agreed = replace(ranking, supports=[support + 2, *ranking.supports[1:]])  # another look lays the photo alike
    assert matched_position(agreed, support + 1).inliers == inliers


def test_a_centre_beyond_the_neighbouring_tiles_is_not_believed(rank, hit, calibration, tile_map, photo_map):
    """A corner of a large photo lies in the tile and matches; its centre would be two sides away."""
    ranking = rank([hit(0.9)], photo_map(115 + 0j, 0, 240), [tile_map(hit(0.9))], calibration)
    assert ranking.hits[0].inliers > MIN_INLIERS
    assert matched_position(ranking, MIN_INLIERS) is None


@pytest.mark.parametrize("heading", [None, 0.0, 20.0, 90.0, 233.0])
@pytest.mark.parametrize("share", [None, 0.6])
def test_crop_and_turn_of_the_view_are_undone(rank, hit, calibration, ground_of, tile_map, heading, share):
    """A photo whose colours are its pixels' coordinates: the view says which part of the photo each cell shows.

    The photo's true heading is 233°, so a hint is right, or wrong by up to 147°; either way the photo lies where it is.
    """
    across, high, true_heading, centre = 240, 160, 233.0, 12 - 7j
    x, y = np.meshgrid(np.arange(across), np.arange(high))
    image = Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8))
    camera = Pinhole(Attitude.of_angles(heading or 0.0), 60.0, high / across)
    whole = look_of(camera, north_up=heading is not None).side_heights
    look = look_of(camera, north_up=heading is not None, ground_side=None if share is None else share * whole)
    seen = np.asarray(make_view(image, look).resize((24, 24), Image.Resampling.BOX), float)
    metres = 1.0 if share is not None else 0.625  # a pixel, so that the square shows 96 or 100 m
    right_m, up_m = (seen[..., 0] + 0.5 - across / 2) * metres, (high / 2 - seen[..., 1] - 0.5) * metres
    turn = np.exp(-1j * np.radians(true_heading))
    points = centre + turn * (right_m + 1j * up_m)
    local = ground_of(0)(points).astype(np.float32).reshape(1, 64, 24, 24)
    hits = [hit(0.9)]
    position, seen_deg, fix = laid(rank, hits, Seen(look, local), [tile_map(hits[0])], calibration)
    assert abs(position - centre) < 0.5 * CELL_M
    assert apart_deg(seen_deg, true_heading) < 1.5
    north_west, *_ = footprint_of(fix, corners(high / across))
    expected = centre + turn * metres * complex(-across / 2, high / 2)
    assert complex(*offset_m(*ORIGIN, *north_west)) == pytest.approx(expected, abs=2 * CELL_M)


@pytest.mark.parametrize(("falling", "is_there"), [(0.0, True), (1.9, True), (1.9999999, False), (2.1, False)])
def test_a_corner_just_below_the_horizon_has_no_place(falling, is_there):
    """With this homography a step up leads ever further, and half a width up lies the horizon at ``falling`` 2."""
    to_ground = np.array([[100.0, 0, 0], [0, 100, 0], [0, -falling, 1]])
    (corner,) = footprint_of(SimpleNamespace(to_ground=to_ground, origin=ORIGIN), np.array([0.5j]))
    assert (corner is not None) == is_there
    if is_there:
        assert corner[0] == pytest.approx(ORIGIN[0] + 50 / (1 - falling / 2) / 110_760, abs=1e-5)
