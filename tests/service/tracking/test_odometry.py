import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gallery.local_maps import to_int8
from service.localization.matching import cell_centres
from service.localization.refine import Fix
from service.tracking.odometry import DRIFT_SHARE, FIX_SHARE, HINT_SHARE, Sight, shift_between

SIDE_M, CELLS, MIN_INLIERS = 86.0, 24, 30
CELL_M = SIDE_M / CELLS
GRID = cell_centres(CELLS, CELLS)


class Ground:
    """Made-up ground with a descriptor at every point: sums of random waves, unlike those of any other seed."""

    def __init__(self, seed, grain_m=6.0):
        rng = np.random.default_rng(seed)
        self._waves = rng.normal(0, 1 / grain_m, (64, 8, 1)) - 1j * rng.normal(0, 1 / grain_m, (64, 8, 1))
        self._phases = rng.uniform(0, 2 * np.pi, (64, 8, 1))

    def seen(self, centre_m, heading_deg=0.0, side_m=SIDE_M, noise=0.4, seed=0):
        """Unit descriptors ``[64, 24, 24]`` of a photo, each turned a little."""
        points = cmath.rect(side_m, -math.radians(heading_deg)) * GRID + centre_m
        waves = np.cos((self._waves * points).real + self._phases).sum(axis=1)
        waves /= np.linalg.norm(waves, axis=0)
        random = np.random.default_rng(seed).normal(size=waves.shape)
        waves += noise * random / np.linalg.norm(random, axis=0)
        return (waves / np.linalg.norm(waves, axis=0)).astype(np.float32).reshape(64, CELLS, CELLS)


def sight(local, heading_deg=0.0, side_m=SIDE_M):
    """As it lies on the ground when the square's top faces this heading."""
    right_m = cmath.rect(side_m, -math.radians(heading_deg))
    return Sight.of_fix(local, Fix(24.26, 120.72, right_m, 1j * right_m, 0.0, 200))


@settings(deadline=None, max_examples=40)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 360), st.floats(-40, 40), st.floats(0.8, 1.25))
def test_a_movement_is_found_in_metres_east_and_north(east_m, north_m, heading_deg, turn_deg, growth):
    """The drone flies, turns and climbs between the photos; neither is north-up."""
    ground = Ground(0)
    before = sight(ground.seen(0j, heading_deg), heading_deg)
    later = ground.seen(complex(east_m, north_m), heading_deg + turn_deg, growth * SIDE_M, seed=1)
    shift, after = shift_between(before, later, MIN_INLIERS)
    assert abs(complex(shift.east_m, shift.north_m) - complex(east_m, north_m)) < 0.2 * CELL_M
    turned = cmath.rect(growth * SIDE_M, -math.radians(heading_deg + turn_deg))
    assert abs(after.right_m / turned - 1) < 0.04
    assert abs(after.up_m / (1j * turned) - 1) < 0.04


def test_errors_are_those_that_it_states():
    """Of 60 movements, the squared error over the variance averages 2 or less: no understatement."""
    rng, distances = np.random.default_rng(0), []
    for seed in range(60):
        ground, moved_m = Ground(seed), complex(*rng.uniform(-25, 25, 2))
        shift, _ = shift_between(sight(ground.seen(0j)), ground.seen(moved_m, seed=1), MIN_INLIERS)
        distances.append(abs(complex(shift.east_m, shift.north_m) - moved_m) ** 2 / shift.sigma_m**2)
    assert np.mean(distances) < 2


def test_what_was_handed_on_is_less_sure():
    ground = Ground(0)
    first = sight(ground.seen(0j))
    short, second = shift_between(first, ground.seen(10 + 0j, seed=1), MIN_INLIERS)
    long, third = shift_between(first, ground.seen(30 + 0j, seed=1), MIN_INLIERS)
    assert long.sigma_m > short.sigma_m
    assert (first.error_share, second.error_share) == (FIX_SHARE, FIX_SHARE + DRIFT_SHARE)
    again, _ = shift_between(second, ground.seen(20 + 0j, seed=2), MIN_INLIERS)
    assert again.sigma_m > short.sigma_m
    assert complex(again.east_m, again.north_m) == pytest.approx(10, abs=0.2 * CELL_M)
    assert third.side_m == pytest.approx(SIDE_M, rel=0.02)


def test_a_tilted_photo_sees_further_ahead():
    """A step up the picture covers twice the ground of a step to the right, and a movement is measured with that."""
    local = Ground(0).seen(0j)
    tilted = Sight(to_int8(local), SIDE_M + 0j, 2j * SIDE_M, FIX_SHARE)
    level_shift, _ = shift_between(sight(local), Ground(0).seen(0 + 20j, seed=1), MIN_INLIERS)
    shift, _ = shift_between(tilted, Ground(0).seen(0 + 20j, seed=1), MIN_INLIERS)
    assert shift.north_m == pytest.approx(2 * level_shift.north_m)
    assert shift.east_m == pytest.approx(level_shift.east_m)


def test_hints_say_how_a_photo_turned_north_up_lies():
    ground = Ground(0)
    stated = Sight.of_hints(ground.seen(0j), SIDE_M)
    shift, _ = shift_between(stated, ground.seen(12 - 5j, seed=1), MIN_INLIERS)
    assert complex(shift.east_m, shift.north_m) == pytest.approx(12 - 5j, abs=0.2 * CELL_M)
    assert stated.error_share == HINT_SHARE > FIX_SHARE


@pytest.mark.parametrize("seed", range(1, 25))
def test_another_place_is_no_movement(seed):
    assert shift_between(sight(Ground(0).seen(0j)), Ground(seed).seen(0j, seed=1), MIN_INLIERS) is None


def test_photos_of_nothing_are_no_movement():
    """Blank photos agree perfectly, cell by cell: by where the cells lie, not by what they show."""
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(64, 1, 1)), 0.3 * rng.normal(size=(64, CELLS, CELLS))
    blank = common + own
    blank = (blank / np.linalg.norm(blank, axis=0)).astype(np.float32)
    assert shift_between(sight(blank), blank, MIN_INLIERS) is None
    assert shift_between(sight(Ground(0).seen(0j)), blank, MIN_INLIERS) is None


def test_a_map_of_few_cells_is_matched_to_its_borders():
    """Maps of 8 × 8 cells have no cells to spare round those that are matched."""
    ground = Ground(0, grain_m=12.0)
    small = [ground.seen(centre, noise=0.1, seed=seed)[:, 1::3, 1::3] for seed, centre in enumerate((0j, 14 + 8j))]
    shift, _ = shift_between(sight(small[0]), small[1], 15)
    assert complex(shift.east_m, shift.north_m) == pytest.approx(14 + 8j, abs=0.35 * SIDE_M / 8)


def test_maps_of_another_shape_are_not_compared():
    local = Ground(0).seen(0j)
    assert shift_between(sight(local), local[:, :12, :12], MIN_INLIERS) is None
