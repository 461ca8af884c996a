import cmath
import math

import pytest

from service.camera.look import Look
from service.camera.pinhole import similarity_matrix
from service.encoder.calibration import Calibration, Logistic
from service.geo import offset, offset_m
from service.ground.local_maps import to_int8
from service.ground.records import Hit
from service.ground.tile import Footprint, Tile
from service.localization.matching import cell_centres
from service.localization.rerank import Seen, ground_grid, rerank

SIDE_M = 100.0
ORIGIN = (24.26, 120.72)
CELLS = 24
GRID = cell_centres(CELLS, CELLS)


def seen(local, turned_deg=0.0):
    """A square photo whose square was turned so far clockwise, with the descriptors of its turns ``[T, C, h, w]``."""
    turn = cmath.rect(1, math.radians(turned_deg))  # what is up in the square lies so far to the left in the photo
    return Seen(Look(similarity_matrix(turn, 0j), 1.0), local)


@pytest.fixture(scope="session")
def calibration():
    return Calibration(
        place=Logistic(-2.0, 4.0, 10.0),
        in_gallery=Logistic(-3.0, 8.0, 5.0),
        rival_floor=0.3,
        sigma_tiles=0.25,
        located_min_confidence=0.75,
        not_found_below=0.5,
        refine_temperature=0.05,
    )


@pytest.fixture(scope="session")
def hit():
    """``hit(score, east_m, north_m)``: a 100 m tile so far from the origin, at 24.26, 120.72."""

    def make(score, east_m=0.0, north_m=0.0):
        lat, lon = offset(*ORIGIN, east_m, north_m)
        footprint = Footprint.from_centre(float(lat), float(lon), 1.0, 100, 100)
        return Hit(Tile(f"{east_m:.3f}/{north_m:.3f}", footprint), score)

    return make


@pytest.fixture(scope="session")
def tile_map(ground_of):
    """``tile_map(hit, seed)``: the local map of a hit's tile, for ground whose origin is at 24.26, 120.72."""

    def make(hit, seed=0):
        east_m, north_m = offset_m(*ORIGIN, *hit.tile.footprint.centre)
        points, _ = ground_grid(hit.tile.footprint, CELLS, CELLS, "squash")
        return to_int8(ground_of(seed)(points + complex(east_m, north_m)).reshape(64, CELLS, CELLS))

    return make


@pytest.fixture(scope="session")
def photo_map(ground_of, spoil):
    """``photo_map(centre_m, heading_deg, side_m)``: a square photo of that ground, seen as it is, in one turn."""

    def make(centre_m=0j, heading_deg=0.0, side_m=SIDE_M, seed=0):
        a = cmath.rect(side_m, -math.radians(heading_deg))
        return seen(spoil(ground_of(seed)(a * GRID + centre_m), 1).reshape(1, 64, CELLS, CELLS))

    return make


@pytest.fixture(scope="session")
def rank():
    """``rank(hits, photo, maps, calibration, …)``: the candidates, matched, from a gallery that holds their maps."""

    def make(hits, photo, maps, calibration, **more):
        stored = {hit.tile.id: each for hit, each in zip(hits, maps, strict=True)}
        return rerank(hits, photo, lambda some: [stored[hit.tile.id] for hit in some], calibration, "squash", **more)

    return make
