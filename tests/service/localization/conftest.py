import pytest

from service.encoder.calibration import Calibration, Logistic
from service.gallery.gallery import Hit
from service.gallery.tile import Footprint, Tile
from service.geo import offset

SIDE_M = 100.0
ORIGIN = (24.26, 120.72)


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
