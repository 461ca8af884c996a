import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ground.local_maps import to_int8
from service.localization.matching import cell_centres
from service.tracking.odometry import DRIFT_SHARE, FIX_SHARE, HINT_SHARE, Sight, shift_between

SIDE_M, CELLS, MIN_INLIERS = 86.0, 24, 30
CELL_M = SIDE_M / CELLS
GRID = cell_centres(CELLS, CELLS)


@pytest.fixture(scope="session")
def seen(ground_of, spoil):
    """``seen(centre_m, heading_deg, side_m, ground, day)``: descriptors ``[64, 24, 24]`` of a photo of that ground."""

    def make(centre_m, heading_deg=0.0, side_m=SIDE_M, ground=0, day=0, grain_m=6.0, noise=0.4):
        points = cmath.rect(side_m, -math.radians(heading_deg)) * GRID + centre_m
        return spoil(ground_of(ground, grain_m)(points), day, noise, 0.0).reshape(64, CELLS, CELLS)

    return make


def sight(local, heading_deg=0.0, side_m=SIDE_M):
    """As it lies on the ground when the square's top faces this heading."""
    right_m = cmath.rect(side_m, -math.radians(heading_deg))
    return Sight.of_fix(local, right_m, 1j * right_m)


@settings(deadline=None, max_examples=40)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 360), st.floats(-40, 40), st.floats(0.8, 1.25))
def test_a_movement_is_found_in_metres_east_and_north(seen, east_m, north_m, heading_deg, turn_deg, growth):
    """The drone flies, turns and climbs between the photos; neither is north-up."""
    before = sight(seen(0j, heading_deg), heading_deg)
    later = seen(complex(east_m, north_m), heading_deg + turn_deg, growth * SIDE_M, day=1)
    shift, after = shift_between(before, later, MIN_INLIERS)
    assert abs(complex(shift.east_m, shift.north_m) - complex(east_m, north_m)) < 0.2 * CELL_M
    turned = cmath.rect(growth * SIDE_M, -math.radians(heading_deg + turn_deg))
    assert abs(after.right_m / turned - 1) < 0.04
    assert abs(after.up_m / (1j * turned) - 1) < 0.04


def test_errors_are_those_that_it_states(seen):
    """Of 60 movements, the squared error over the variance averages 2 or less: no understatement."""
    rng, distances = np.random.default_rng(0), []
    for seed in range(60):
        moved_m = complex(*rng.uniform(-25, 25, 2))
        shift, _ = shift_between(sight(seen(0j, ground=seed)), seen(moved_m, ground=seed, day=1), MIN_INLIERS)
        distances.append(abs(complex(shift.east_m, shift.north_m) - moved_m) ** 2 / shift.sigma_m**2)
    assert np.mean(distances) < 2


def test_what_was_handed_on_is_less_sure(seen):
    first = sight(seen(0j))
    short, second = shift_between(first, seen(10 + 0j, day=1), MIN_INLIERS)
    long, third = shift_between(first, seen(30 + 0j, day=1), MIN_INLIERS)
    assert long.sigma_m > short.sigma_m
    assert (first.error_share, second.error_share) == (FIX_SHARE, FIX_SHARE + DRIFT_SHARE)
    again, _ = shift_between(second, seen(20 + 0j, day=2), MIN_INLIERS)
    assert again.sigma_m > short.sigma_m
    assert complex(again.east_m, again.north_m) == pytest.approx(10, abs=0.2 * CELL_M)
    assert third.side_m == pytest.approx(SIDE_M, rel=0.02)


def test_a_tilted_photo_sees_further_ahead(seen):
    """A step up the picture covers twice the ground of a step to the right, and a movement is measured with that."""
    local = seen(0j)
    tilted = Sight(to_int8(local), SIDE_M + 0j, 2j * SIDE_M, FIX_SHARE)
    level_shift, _ = shift_between(sight(local), seen(0 + 20j, day=1), MIN_INLIERS)
    shift, _ = shift_between(tilted, seen(0 + 20j, day=1), MIN_INLIERS)
    assert shift.north_m == pytest.approx(2 * level_shift.north_m)
    assert shift.east_m == pytest.approx(level_shift.east_m)


def test_hints_say_how_a_photo_turned_north_up_lies(seen):
    stated = Sight.of_hints(seen(0j), SIDE_M)
    shift, _ = shift_between(stated, seen(12 - 5j, day=1), MIN_INLIERS)
    assert complex(shift.east_m, shift.north_m) == pytest.approx(12 - 5j, abs=0.2 * CELL_M)
    assert stated.error_share == HINT_SHARE > FIX_SHARE


@pytest.mark.parametrize("seed", range(1, 25))
def test_another_place_is_no_movement(seen, seed):
    assert shift_between(sight(seen(0j)), seen(0j, ground=seed, day=1), MIN_INLIERS) is None


def test_photos_of_nothing_are_no_movement(seen):
    """Blank photos agree perfectly, cell by cell: by where the cells lie, not by what they show."""
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(64, 1, 1)), 0.3 * rng.normal(size=(64, CELLS, CELLS))
    blank = common + own
    blank = (blank / np.linalg.norm(blank, axis=0)).astype(np.float32)
    assert shift_between(sight(blank), blank, MIN_INLIERS) is None
    assert shift_between(sight(seen(0j)), blank, MIN_INLIERS) is None


def test_a_map_of_few_cells_is_matched_to_its_borders(seen):
    """Maps of 8 × 8 cells have no cells to spare round those that are matched."""
    small = [seen(centre, day=day, grain_m=12.0, noise=0.1)[:, 1::3, 1::3] for day, centre in enumerate((0j, 14 + 8j))]
    shift, _ = shift_between(sight(small[0]), small[1], 15)
    assert complex(shift.east_m, shift.north_m) == pytest.approx(14 + 8j, abs=0.35 * SIDE_M / 8)


def test_maps_of_another_shape_are_not_compared(seen):
    local = seen(0j)
    assert shift_between(sight(local), local[:, :12, :12], MIN_INLIERS) is None
