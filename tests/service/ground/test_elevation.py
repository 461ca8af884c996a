"""Heights of the ground in memory: between the points of a grid, and of several maps."""

import numpy as np
import pytest

from service.ground.elevation import CACHED, Elevation, Elevations, Grid, is_near

GRID = Grid("dem.tif", 120.0, 24.0, 0.001, 0.001, 0.0, 30.0, 1.0)
HEIGHTS = np.array([[0, 10], [20, 30]], np.float32)


def test_between_four_points_a_height_is_their_mean():
    elevation = Elevation(GRID, HEIGHTS)
    assert elevation.at(23.9995, 120.0005) == pytest.approx(15, abs=1e-3)
    assert np.isnan(elevation.at(24.0005, 120.0005))


def test_heights_are_read_once_and_only_of_maps_that_have_some():
    asked = []

    def read(number):
        asked.append(number)
        return Elevation(GRID, HEIGHTS)

    elevations = Elevations(read, lambda number: None if number == 99 else GRID)
    assert elevations.grid(1) == GRID
    assert elevations.get(99) is None
    assert asked == []
    numbers = list(range(CACHED + 1))
    for number in [*numbers, numbers[-1], numbers[0]]:
        assert elevations.get(number) is not None
    assert asked == [*numbers, 0]  # that which was asked for longest ago went


def test_what_was_read_before_a_change_is_not_kept_after_it():
    stored = [GRID]

    def read_grid(number):
        found = stored[0]
        if found is not None:  # it is deleted while it is read
            stored[0] = None
            elevations.forget(number)
        return found

    elevations = Elevations(lambda number: None, read_grid)
    assert elevations.grid(1) == GRID
    assert elevations.grid(1) is None


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (
            (120.0, 24.0, 120.1, 24.1),
            [(24.05, 120.05), (23.995, 120.05), (24.05, 119.995)],
            [(23.9, 120.05)],
        ),
        ((179.9, -1.0, -179.9, 1.0), [(0.0, 179.95), (0.0, -179.95), (0.0, 180.0)], [(0.0, 0.0), (0.0, 179.5)]),
        ((-180.0, -85.0, 180.0, 85.0), [(0.0, 0.0), (80.0, 180.0)], [(86.0, 0.0)]),
    ],
)
def test_places_near_a_map(bounds, inside, outside):
    assert all(is_near(bounds, *place) for place in inside)
    assert not any(is_near(bounds, *place) for place in outside)
