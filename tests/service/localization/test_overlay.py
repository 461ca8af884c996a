"""A photo laid over ground of which hardly a detail matches: half of each descriptor is noise."""

import numpy as np
import pytest

from service.camera.attitude import Attitude
from service.camera.known import KnownCamera, Reading
from service.geo import Circle, haversine_m, offset
from service.ground.local_maps import to_int8
from service.ground.records import Hit
from service.ground.search import Found
from service.ground.windows import Lattice, cells_of, pack, pixel_m
from service.localization.looks import plan_looks
from service.localization.overlay import lay_over, plan_overlays

LATTICE, ZOOM = Lattice(224), 18
ROW, COLUMN, ALONG = 400_000, 900_000, 16
H = 28
NOISE = 2.5  # length of what a photo's descriptor has of its own, over that of what it shows


class OneMap:
    """A gallery with one map of 16 × 16 windows, whose descriptors are drawn cell by cell."""

    def __init__(self, seed, along=ALONG):
        rows, columns = np.indices((along, along)).reshape(2, -1)
        self.ids = pack(1, ZOOM, rows + ROW, columns + COLUMN)
        side = (along + 1) * H // 2
        rng = np.random.default_rng(seed)
        self.ground = rng.normal(size=(64, side, side)) + 2 * rng.normal(size=(64, 1, 1))  # all have much in common
        self.stored = to_int8((self.ground / np.linalg.norm(self.ground, axis=0)).astype(np.float32))

    def found(self):
        return Found(self.ids, np.linspace(0.5, 0.1, len(self.ids), dtype=np.float32))

    def geometry(self, found):
        return LATTICE.centres(found.ids), LATTICE.sides_m(found.ids)

    def nearest_sides_m(self, found, side_m):
        return LATTICE.sides_m(found.ids)

    def cells(self, number, zoom, top, left, height, width):
        top, left = top - ROW * H // 2, left - COLUMN * H // 2
        padded = np.pad(self.stored, ((0, 0), (200, 200), (200, 200)))
        return padded[:, 200 + top : 200 + top + height, 200 + left : 200 + left + width]

    def hits(self, found):
        tiles = LATTICE.tiles(found.ids, {1: "map"})
        rows = zip(tiles, found.scores.tolist(), found.ids.tolist(), strict=True)
        return [Hit(tile, score, None, "map", number) for tile, score, number in rows]

    def photo(self, row, column, seed=0):
        """Descriptors of what a window's square shows whose first cell is this one of the map."""
        shown = self.ground[:, row : row + H, column : column + H]
        noise = np.random.default_rng(seed).normal(size=shown.shape)
        local = shown + NOISE * noise
        return (local / np.linalg.norm(local, axis=0)).astype(np.float32)

    def place(self, row, column):
        """``lat, lon`` of the middle of that square."""
        lat, lon = LATTICE.centres(self.ids[:1])[0]
        cell_m = LATTICE.sides_m(self.ids[:1])[0] / H
        return offset(lat, lon, column * cell_m, -row * cell_m)


@pytest.fixture(scope="module")
def ground():
    return OneMap(1)


def straight_down(side_m, *left_out):
    """The look at a photo that shows so much ground, with its top to the north."""
    said = {"heading_deg": (0.0, 8.0), "height_m": (side_m / 2 / np.tan(np.radians(30)), 3.0), "hfov_deg": (60.0, 0.05)}
    readings = {name: Reading(*value, "form") for name, value in said.items() if name not in left_out}
    return plan_looks(KnownCamera(**readings, tilt=Attitude.of_angles(0.0, -90.0)), "normal")[0]


def side_m_of(ground):
    return float(LATTICE.sides_m(ground.ids[:1])[0])


def laid(ground, local, calibration, prior=None):
    overs = plan_overlays(straight_down(side_m_of(ground)), 1.0, ground, ground.found())
    return lay_over(overs, [local], ground, calibration, prior)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 201), (97, 108), (150, 64), (209, 210)])
def test_the_place_is_found_wherever_it_lies(ground, calibration, row, column):
    ranking = laid(ground, ground.photo(row, column), calibration)
    (hit,), (found,) = ranking.hits, ranking.matches
    east_m, north_m = found.fit.b.real, found.fit.b.imag
    there = offset(*hit.tile.footprint.centre, east_m, north_m)
    assert haversine_m(*there, *ground.place(row, column)) < 1.5 * side_m_of(ground) / H
    assert ranking.supports[0] > 2 * calibration.local.min_inliers
    (tile_row,), (tile_column,) = cells_of(np.array([hit.number]))
    assert abs((tile_row - ROW) * H / 2 - row) <= H / 4 + 1
    assert abs((tile_column - COLUMN) * H / 2 - column) <= H / 4 + 1


def test_other_ground_is_worth_no_more_than_chance(ground, calibration):
    worth = [laid(ground, OneMap(seed).photo(40, 40), calibration).supports[0] for seed in range(2, 10)]
    assert max(worth) < 1.6 * calibration.local.min_inliers
    assert np.median(worth) < 1.1 * calibration.local.min_inliers


def test_only_places_within_the_prior_count(ground, calibration):
    near = Circle(*map(float, ground.place(100, 90)), 100.0)
    ranking = laid(ground, ground.photo(97, 108), calibration, near)
    assert ranking.supports[0] > 2 * calibration.local.min_inliers
    away = Circle(*map(float, ground.place(20, 30)), 100.0)
    (hit,) = laid(ground, ground.photo(97, 108), calibration, away).hits
    assert haversine_m(*hit.tile.footprint.centre, away.lat, away.lon) < 100 + side_m_of(ground) / 2


def test_nothing_is_laid_over_ground_without_heading_or_size_or_where_there_is_too_little(ground):
    side_m, found = side_m_of(ground), ground.found()
    assert plan_overlays(straight_down(side_m, "heading_deg"), 1.0, ground, found) == []
    assert plan_overlays(straight_down(side_m, "height_m"), 1.0, ground, found) == []
    assert plan_overlays(straight_down(10 * side_m), 1.0, ground, found) == []
    few = OneMap(1, along=3)
    assert plan_overlays(straight_down(side_m), 1.0, few, few.found()) == []
    (over,) = plan_overlays(straight_down(1.5 * side_m), 1.0, ground, found)
    assert over.side_m == pytest.approx(H * 8 * pixel_m(ZOOM, LATTICE.centres(ground.ids)[:, 0].mean()), rel=0.01)
