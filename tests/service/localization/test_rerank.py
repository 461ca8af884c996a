import cmath
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from service.camera.look import Look
from service.encoder.calibration import MIN_INLIERS, Calibration
from service.geo import offset
from service.ground.local_maps import to_int8
from service.ground.records import Hit
from service.ground.tile import Footprint, Tile
from service.localization.matching import cell_centres
from service.localization.rerank import (
    AT_LEAST,
    FEW,
    MATCHED,
    Seen,
    ground_grid,
    joined,
    unmatched,
)

ORIGIN = (24.26, 120.72)
SIDE_M, CELLS = 100.0, 24
GRID = cell_centres(CELLS, CELLS)


def as_it_is(local):
    """A square photo with these descriptors ``[C, h, w]``."""
    return Seen(Look(np.eye(3), 1.0), local[None])


def test_the_tile_that_shows_the_ground_comes_first(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9, 500), hit(0.85, 900), hit(0.8), hit(0.75, 1300)]
    ranking = rank(hits, photo_map(heading_deg=130, side_m=120), [*map(tile_map, hits)], calibration)
    best, *others = ranking.hits
    assert (best.tile, best.score) == (hits[2].tile, 0.8)
    assert best.inliers > 100
    assert {other.tile.id for other in others} == {hits[i].tile.id for i in (0, 1, 3)}
    assert all(other.inliers < MIN_INLIERS for other in others)
    assert ranking.evidence == [each.score for each in ranking.hits]  # its calibration knows nothing of inliers
    assert ranking.calibration is calibration
    assert len(ranking.matches[0].square) == len(ranking.matches[0].ground_m) >= best.inliers


def test_of_many_candidates_those_that_look_alike_are_matched(rank, hit, calibration, tile_map, photo_map):
    """The right one is the last by score; turned by a quarter, too."""
    others = [hit(0.9 - i / 1000, 1000.0 * (i + 1)) for i in range(2 * MATCHED)]
    hits = [*others, hit(0.8)]
    level = photo_map(heading_deg=40)
    turned = np.concatenate([np.rot90(level.local, k - 1, axes=(2, 3)) for k in range(4)])  # a quarter too far
    ranking = rank(hits, replace(level, local=turned), [*map(tile_map, hits)], calibration)
    found = ranking.hits[0]
    assert found.tile == hits[-1].tile
    assert found.inliers > 100
    matched = [each for each in ranking.hits if each.inliers is not None]
    assert (
        AT_LEAST <= len(matched) == sum(each is not None for each in ranking.matches) < MATCHED
    )  # one is beyond doubt
    pairs = zip(ranking.hits, ranking.matches, strict=True)
    assert all((each.inliers is None) == (matches is None) for each, matches in pairs)


def test_without_a_sure_one_as_many_are_matched_as_may_be(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9 - i / 1000, 1000.0 * (i + 1)) for i in range(2 * MATCHED)]
    ranking = rank(hits, photo_map(seed=9), [*map(tile_map, hits)], calibration)
    assert sum(each is not None for each in ranking.matches) == MATCHED


def test_what_few_have_told_is_not_matched_again(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9 - i / 1000, 1000.0 * (i + 1)) for i in range(2 * MATCHED)]
    photo, maps = photo_map(seed=9), [*map(tile_map, hits)]
    few = rank(hits, photo, maps, calibration, amount=FEW)
    assert len(few.matched_ids) == FEW.matched
    more = rank(hits, photo, maps, calibration, done=few)
    assert not few.matched_ids & more.matched_ids
    both = joined(few, more, calibration)
    assert len(both.matched_ids) == MATCHED
    assert not both.is_sure(calibration)


def test_few_are_enough_where_one_is_beyond_doubt(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9 - i / 1000, 1000.0 * i) for i in range(2 * MATCHED)]
    few = rank(hits, photo_map(), [*map(tile_map, hits)], calibration, amount=FEW)
    assert few.is_sure(calibration)
    assert few.hits[0].tile == hits[0].tile


def test_every_level_gets_its_share(rank, calibration, tile_map, photo_map):
    """Small tiles are many and have the better scores; the large one is found all the same."""
    small = [
        Hit(Tile(f"small{i}", Footprint.from_centre(*offset(*ORIGIN, 400.0 * (i + 1), 0), 0.25, 100, 100)), 0.9)
        for i in range(2 * MATCHED)
    ]
    hits = [*small, Hit(Tile("large", Footprint.from_centre(*ORIGIN, 1.0, 100, 100)), 0.1)]
    ranking = rank(hits, photo_map(), [*map(tile_map, hits)], calibration)
    assert ranking.hits[0].tile.id == "large"


def test_a_model_file_says_what_matches_are_worth(rank, hit, calibration_json, tile_map, photo_map):
    hits = [hit(0.9, 500), hit(0.8)]
    maps = [*map(tile_map, hits)]
    section = {"min_inliers": 50, "inlier_weight": 0.5, "sigma_tiles": 0.02}
    fitted = Calibration.parse(json.dumps(calibration_json | {"local": section}))
    ranking = rank(hits, photo_map(), maps, fitted)
    supports = ranking.supports
    scores = [each.score for each in ranking.hits]
    assert ranking.evidence == [fitted.local.evidence(*each) for each in zip(scores, supports, strict=True)]
    assert supports[0] > 100 > 50 > supports[1]
    assert ranking.calibration.sigma_tiles == 0.02


def test_two_looks_are_joined_by_what_each_tile_has_more_of(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9, 500), hit(0.8), hit(0.7, 900)]
    maps = [*map(tile_map, hits)]
    good, bad = photo_map(), photo_map(seed=9)
    one, other = (rank(hits[:2], seen, maps[:2], calibration) for seen in (bad, good))
    both = joined(one, rank(hits, good, maps, calibration), calibration)
    assert both.hits[0] == other.hits[0]
    assert both.matches[0].seen is good
    assert len(both.hits) == 3
    assert joined(unmatched(hits[:1], calibration), unmatched(hits[1:], calibration), calibration).hits == hits


def test_borders_that_are_alike_are_no_evidence(rank, hit, calibration):
    """Noise inside; the outer two cells, where a network sees the image's edge, are the same in photo and tile."""
    rng = np.random.default_rng(0)
    photo, tile = (rng.normal(size=(16, 28, 28)) for _ in range(2))
    edge = np.ones((28, 28), dtype=bool)
    edge[2:-2, 2:-2] = False
    tile[:, edge] = photo[:, edge]
    photo, tile = ((maps / np.linalg.norm(maps, axis=0)).astype(np.float32) for maps in (photo, tile))
    ranking = rank([hit(0.9)], as_it_is(photo), [to_int8(tile)], calibration)
    assert ranking.hits[0].inliers < MIN_INLIERS < edge.sum()


def test_a_photo_of_which_nothing_agrees_anywhere_was_matched(rank, hit, calibration):
    """As open water is: no look says where it lies, and yet the tile has been compared."""
    water = np.full((16, CELLS, CELLS), 0.25, np.float32)
    ranking = rank([hit(0.9)], as_it_is(water), [to_int8(water)], calibration)
    assert (ranking.sightings, ranking.supports) == ([], [0.0])
    assert ranking.was_matched
    assert not rank([hit(0.9)], as_it_is(water), [None], calibration).was_matched


def test_rounding_to_eight_bits_prefers_no_cell(rank, hit, calibration):
    """Colours that differ by little: a vector that rounding has made longer must not look more similar than it is."""
    rng = np.random.default_rng(0)
    colours = 1 + 0.3 * rng.random((3, 8, 8))
    photo = (colours / np.linalg.norm(colours, axis=0)).astype(np.float32)
    ranking = rank([hit(0.9)], as_it_is(photo), [to_int8(photo)], calibration)
    assert ranking.hits[0].inliers > 55


def test_candidates_without_descriptors_keep_their_score(rank, hit, calibration, tile_map, photo_map):
    hits = [hit(0.9, 500), hit(0.8), *(hit(0.7 - i / 100, 1000 * i + 2000) for i in range(MATCHED))]
    ranking = rank(hits, photo_map(), [None, tile_map(hits[1]), *[None] * MATCHED], calibration)
    assert ranking.hits[0].inliers > 100
    assert [each.tile for each in ranking.hits[1:]] == [hits[0].tile, *(each.tile for each in hits[2:])]
    assert {each.inliers for each in ranking.hits[1:]} == {None}
    assert ranking.matches[1:] == [None] * (len(hits) - 1)


def test_a_gallery_without_descriptors_is_judged_as_before(rank, hit, calibration, calibration_json, photo_map):
    fitted = Calibration.parse(json.dumps(calibration_json | {"local": {"min_inliers": 20, "inlier_weight": 0.5}}))
    hits = [hit(0.9, 500), hit(0.8)]
    ranking = rank(hits, photo_map(), [None, None], fitted)
    assert (ranking.hits, ranking.evidence, ranking.matches) == (hits, [0.9, 0.8], [None, None])
    assert ranking.calibration is fitted


def test_the_grid_of_a_north_up_tile_in_closed_form():
    """300 m by 100 m: squashed, cells are three times as wide as high; cropped, the map spans the middle 100 m."""
    footprint = Footprint.from_centre(*ORIGIN, 1.0, 300, 100)
    centres, cell_m = ground_grid(footprint, 2, 2, "squash")
    np.testing.assert_allclose(centres, [-75 + 25j, 75 + 25j, -75 - 25j, 75 - 25j], atol=0.01)
    assert cell_m == pytest.approx(math.sqrt(150 * 50), rel=1e-4)
    centres, cell_m = ground_grid(footprint, 2, 2, "center_crop")
    np.testing.assert_allclose(centres, [-25 + 25j, 25 + 25j, -25 - 25j, 25 - 25j], atol=0.01)
    assert cell_m == pytest.approx(50, rel=1e-4)
    tall, _ = ground_grid(Footprint.from_centre(*ORIGIN, 1.0, 100, 300), 2, 2, "center_crop")
    np.testing.assert_allclose(tall, centres, atol=0.01)


@pytest.mark.parametrize("turn_deg", [0, 37, 90, 200])
def test_the_grid_of_a_turned_tile_in_closed_form(turn_deg):
    """The top of the image faces ``turn_deg``: what is right of its middle lies so far clockwise of east."""
    turn = cmath.rect(1, -math.radians(turn_deg))
    corners_m = [turn * each for each in (-50 + 50j, 50 + 50j, 50 - 50j, -50 - 50j)]
    corners = [offset(*ORIGIN, each.real, each.imag) for each in corners_m]
    centres, cell_m = ground_grid(Footprint.from_corners(corners, 64, 64), CELLS, CELLS, "squash")
    np.testing.assert_allclose(centres, turn * SIDE_M * GRID, atol=0.02)
    assert cell_m == pytest.approx(SIDE_M / CELLS, rel=1e-4)


def test_a_tile_over_the_antimeridian(rank, calibration, photo_map, tile_map, ground_of):
    footprint = Footprint.from_centre(0.0, 180.0, 1.0, 100, 100)
    points, _ = ground_grid(footprint, CELLS, CELLS, "squash")
    local = to_int8(ground_of(0)(points).reshape(64, CELLS, CELLS))
    ranking = rank([Hit(Tile("t", footprint), 0.5)], photo_map(), [local], calibration)
    assert ranking.hits[0].inliers > 100
