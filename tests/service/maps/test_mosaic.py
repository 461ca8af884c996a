"""Maps of any projection as one mosaic of Web Mercator pixels: numbers against each pixel's own projection."""

import math
from contextlib import closing

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine

from service.maps.mosaic import open_mosaic

UTM51 = "EPSG:32651"
COS, SIN = math.cos(math.radians(30)), math.sin(math.radians(30))
MAPS = {
    "utm": (UTM51, Affine(1, 0, 268_000, 0, -1, 2_684_000), 17),
    "a fine one": (UTM51, Affine(0.1, 0, 268_000, 0, -0.1, 2_684_000), 20),
    "web mercator at 60 north": ("EPSG:3857", Affine(2, 0, 1.2e6, 0, -2, 8.4e6), 17),
    "degrees": ("EPSG:4326", Affine(1e-5, 0, 120.7, 0, -1e-5, 24.3), 17),
    "polar stereographic": ("EPSG:3031", Affine(1, 0, 1.5e6, 0, -1, -1.6e6), 17),
    "turned": (UTM51, Affine(COS, SIN, 268_000, SIN, -COS, 2_684_000), 17),
    "from south to north": (UTM51, Affine(1, 0, 268_000, 0, 1, 2_684_000), 17),
    "oblong pixels": (UTM51, Affine(1, 0, 268_000, 0, -2, 2_684_000), 17),
}


@pytest.mark.parametrize("kind", MAPS)
def test_pixels_lie_where_they_should_to_a_tenth_of_a_pixel(tmp_path, write, blobs, read_all, shift_px, kind):
    crs, transform, zoom = MAPS[kind]
    bands = blobs(230, 260)
    path = write(tmp_path / "map.tif", bands, crs, transform)
    with closing(open_mosaic(path)) as mosaic:
        image, valid, window = read_all(mosaic, zoom)
    off_px, off_brightness = shift_px(image, valid, window, zoom, bands, crs, transform)
    assert off_px < 0.1
    assert off_brightness < 2


def test_bounds_gsd_and_name(tmp_path, write, blobs):
    path = write(tmp_path / "area.tif", blobs(200, 300), UTM51, Affine(0.5, 0, 500_000, 0, -0.5, 2_684_000))
    with closing(open_mosaic(path)) as mosaic:
        lons, lats = rasterio.warp.transform(UTM51, "EPSG:4326", [500_000, 500_150], [2_684_000, 2_683_900])
        assert mosaic.bounds == pytest.approx((lons[0], lats[1], lons[1], lats[0]), abs=1e-7)
        assert mosaic.gsd_m == pytest.approx(0.5 / 0.9996, rel=1e-4)  # the scale factor of UTM
        assert mosaic.name == "area"
        assert mosaic.notes == []
        assert mosaic.date is None
    with closing(open_mosaic(path, name="what the user calls it.tiff")) as mosaic:
        assert mosaic.name == "what the user calls it"


def test_all_of_a_map_is_valid_and_nothing_else(tmp_path, write, blobs, read_all):
    path = write(tmp_path / "map.tif", blobs(), transform=Affine(1, 0, 499_880, 0, -1, 2_684_000))
    with closing(open_mosaic(path)) as mosaic:
        image, valid, window = read_all(mosaic, 18, margin=20)
        side = 240 / (math.cos(math.radians(24.26)) * 2 * math.pi * 6378137 / 256 / 2**18)
        assert valid.sum() == pytest.approx(side**2, rel=0.01)
        assert image[~valid].max() == 0
        pieces = [mosaic.read(18, window[0] + 100, window[1] + 30, 50, 70) for _ in range(2)]
    for piece, ok in pieces:  # the same again, and the same as a part of the whole
        assert np.abs(piece.astype(int) - image[30:100, 100:150]).max() <= 1
        assert (ok == valid[30:100, 100:150]).all()


@pytest.mark.parametrize("overviews", [(), (2, 4, 8)])
def test_coarse_reads_are_means(tmp_path, write, blobs, read_all, overviews):
    """Each pixel of a coarse read is near the mean of the ground that it covers, with overviews or without."""
    bands = blobs(2048, 2048)
    path = write(tmp_path / "map.tif", bands, "EPSG:3857", Affine(1, 0, 1e6, 0, -1, 1e6), tiled=True)
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, Resampling.average)
    zoom = 13  # 19 m a pixel
    pixel = 2 * math.pi * 6378137 / 256 / 2**zoom
    with closing(open_mosaic(path)) as mosaic:
        image, valid, (left, top, *_) = read_all(mosaic, zoom)
    compared = 0
    for row, column in np.argwhere(valid):
        x = (left + column) * pixel - math.pi * 6378137 - 1e6
        y = 1e6 - (math.pi * 6378137 - (top + row) * pixel)
        if x > pixel and y > pixel and x + 2 * pixel < 2048 and y + 2 * pixel < 2048:
            mean = bands[:, round(y) : round(y + pixel), round(x) : round(x + pixel)].mean(axis=(1, 2))
            assert np.abs(image[row, column] - mean).max() < 50
            compared += np.abs(image[row, column] - mean).mean()
    assert compared / valid.sum() < 8


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1e-5, 0, 179.9988, 0, -1e-5, -16.4996)),
        ("EPSG:4326", Affine(1e-5, 0, -180.0012, 0, -1e-5, -16.4996)),
        ("EPSG:4269", Affine(1e-5, 0, 179.9988, 0, -1e-5, -16.4996)),
        ("EPSG:3857", Affine(1.113194907932736, 0, 20_037_374.7, 0, -1.1607, -1_861_920)),
        ("EPSG:32701", Affine(1, 0, 179_590, 0, -1, 8_173_500)),
    ],
)
def test_maps_over_the_antimeridian(tmp_path, write, blobs, crs, transform):
    path = write(tmp_path / "map.tif", blobs(240, 240), crs, transform)
    with closing(open_mosaic(path)) as mosaic:
        west, south, east, north = mosaic.bounds
        assert west > 179.9
        assert east < -179.9
        zoom, world = 17, 256 << 17
        middle = round((1 - math.asinh(math.tan(math.radians((south + north) / 2))) / math.pi) / 2 * world)
        across, valid = mosaic.read(zoom, world - 60, middle - 60, 120, 120)
        east_side, _ = mosaic.read(zoom, 0, middle - 60, 60, 120)
        wrapped, _ = mosaic.read(zoom, -60, middle - 60, 120, 120)
    assert valid.all()
    assert (across[:, 60:] == east_side).all()
    assert (across == wrapped).all()
    steps = np.abs(np.diff(across.astype(int), axis=1)).max(axis=(0, 2))
    assert steps[59] <= 1.5 * np.median(steps) + 5  # no seam
