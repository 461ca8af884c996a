"""Heights of the ground: read from rasters of any system, unit and gaps, on the map's own ground."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform as project

from service.errors import SourceUnreadable
from service.geo import metres_per_degree
from service.maps.elevation import read_elevation


def from_origin(west, north, right, down):
    return Affine(right, 0, west, 0, -down, north)


BOUNDS = (120.700, 24.250, 120.710, 24.260)  # in UTM zone 51, near its western edge


@pytest.fixture
def slope(write):
    """A raster in UTM whose height grows by 0.1 m a metre eastwards, from 100 m at its western edge."""

    def make(path, crs="EPSG:32651", nodata=None, factor=1.0, holes=(), dtype="float32", **profile):
        (west,), (north,) = project("EPSG:4326", crs, [120.69], [24.27])
        unit_m = rasterio.crs.CRS.from_string(crs).linear_units_factor[1]
        heights = np.broadcast_to(100 + 0.1 * (10 * np.arange(320) + 5), (320, 320)).copy() / factor
        for rows, columns, value in holes:
            heights[rows, columns] = value
        transform = from_origin(west, north, 10 / unit_m, 10 / unit_m)
        return write(path, heights[None].astype(dtype), crs, transform, nodata=nodata, **profile)

    return make


def expected(lat, lon):
    (west,), _ = project("EPSG:4326", "EPSG:32651", [120.69], [24.27])
    (x,), _ = project("EPSG:4326", "EPSG:32651", [lon], [lat])
    return 100 + 0.1 * (x - west)


PLACES = [(24.251, 120.7015), (24.2555, 120.7049), (24.2599, 120.7098)]


def test_heights_are_where_the_raster_has_them(tmp_path, slope):
    elevation, notes = read_elevation(slope(tmp_path / "dem.tif"), "dem.tif", BOUNDS)
    assert notes == []
    for lat, lon in PLACES:
        assert elevation.at(lat, lon) == pytest.approx(expected(lat, lon), abs=0.05)
    lat, lon = np.array(PLACES).T
    assert elevation.at(lat, lon) == pytest.approx([expected(*place) for place in PLACES], abs=0.05)
    assert elevation.grid.covers == 1
    assert elevation.grid.step_lat * metres_per_degree(24.255)[1] == pytest.approx(10, rel=0.02)  # no finer than it is
    assert np.isnan(elevation.at(24.3, 120.705))


@pytest.mark.parametrize(
    ("unit", "metres"), [("m", 1.0), ("Feet", 0.3048), ("US survey foot", 1200 / 3937), ("ft", 0.3048), ("", 1.0)]
)
def test_stated_units_count(tmp_path, slope, unit, metres):
    path = slope(tmp_path / "dem.tif", factor=metres)
    with rasterio.open(path, "r+") as file:
        file.units = (unit,)
    elevation, _ = read_elevation(path, "dem.tif", BOUNDS)
    assert elevation.at(*PLACES[1]) == pytest.approx(expected(*PLACES[1]), abs=0.05)


def test_scale_and_offset_count(tmp_path, slope):
    path = slope(tmp_path / "dem.tif", factor=0.1, dtype="int16")
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.1,), (7.0,)
    elevation, _ = read_elevation(path, "dem.tif", BOUNDS)
    assert elevation.at(*PLACES[1]) == pytest.approx(expected(*PLACES[1]) + 7, abs=0.1)


def test_a_finer_raster_is_resampled(tmp_path, write):
    (west,), (north,) = project("EPSG:4326", "EPSG:32651", [120.699], [24.261])
    heights = np.indices((1300, 1300)).sum(0) % 2 * 10.0  # neighbours 10 m apart, whose mean is 5
    path = write(tmp_path / "dsm.tif", heights[None].astype("float32"), "EPSG:32651", from_origin(west, north, 1, 1))
    elevation, _ = read_elevation(path, "dsm.tif", (120.7, 24.25, 120.71, 24.26))
    assert elevation.grid.step_lat * metres_per_degree(24.255)[1] == pytest.approx(5, rel=0.02)
    assert elevation.at(24.255, 120.705) == pytest.approx(5, abs=1)


def test_gaps_are_unknown_and_named(tmp_path, slope):
    west_half = [(slice(None), slice(0, 150), -9999)]
    elevation, notes = read_elevation(slope(tmp_path / "a.tif", nodata=-9999, holes=west_half), "a.tif", BOUNDS)
    assert np.isnan(elevation.at(*PLACES[0]))
    assert elevation.at(*PLACES[2]) == pytest.approx(expected(*PLACES[2]), abs=0.05)
    assert 0.3 < elevation.grid.covers < 0.7
    assert "of the map" in notes[0]
    undeclared, notes = read_elevation(slope(tmp_path / "b.tif", holes=west_half), "b.tif", BOUNDS)
    assert np.isnan(undeclared.at(*PLACES[0]))
    assert "a_nodata" in notes[0]


def test_a_map_across_the_antimeridian(tmp_path, write):
    heights = np.broadcast_to(np.arange(360, dtype="float32"), (100, 360))  # whole degrees of longitude from 0
    path = write(tmp_path / "world.tif", heights[None], "EPSG:4326", from_origin(0, 50, 1, 1))
    with pytest.raises(SourceUnreadable):  # it ends at 360 degrees east, no longitude that GDAL knows there
        read_elevation(path, "world.tif", (300.0 - 360, 10.0, -59.0, 10.01))
    shifted = np.hstack([heights[:, 180:], heights[:, :180]])
    path = write(tmp_path / "world.tif", shifted[None], "EPSG:4326", from_origin(-180, 50, 1, 1))
    elevation, _ = read_elevation(path, "world.tif", (179.9, 10.0, -179.9, 10.1))
    assert elevation.at(10.05, 179.9) == pytest.approx(179, abs=0.1)
    assert elevation.at(10.05, -179.9) == pytest.approx(180, abs=0.1)


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"crs": None}, "-a_srs"),
        ({"bands": 3}, "gdal_translate -b 1"),
        ({"away": True}, "no heights on the map"),
        ({"crs": "EPSG:2263"}, "gdal_edit.py -units m"),
        ({"unit": "fathom"}, "gdal_edit.py -units m"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(tmp_path, write, change, fix):
    crs = change.get("crs", "EPSG:4326")
    bands = np.full((change.get("bands", 1), 50, 50), 12, "float32")
    path = write(
        tmp_path / "dem.tif", bands, crs, from_origin(121.7 if change.get("away") else 120.69, 24.27, 1e-3, 1e-3)
    )
    if "unit" in change:
        with rasterio.open(path, "r+") as file:
            file.units = (change["unit"],)
    with pytest.raises(SourceUnreadable) as refusal:
        read_elevation(path, "dem.tif", BOUNDS)
    assert fix in refusal.value.detail


def test_a_large_map_has_larger_steps(tmp_path, write):
    path = write(
        tmp_path / "dem.tif", np.full((1, 400, 400), 12, "float32"), "EPSG:4326", from_origin(120, 25, 25e-4, 25e-4)
    )
    elevation, _ = read_elevation(path, "dem.tif", (120.0, 24.0, 121.0, 25.0))
    assert elevation.heights_m.size <= 4_000_000
