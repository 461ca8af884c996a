"""Training and service show a raster alike: the same bands, the same stretch, the same pixels left out."""

import math
from contextlib import closing

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from service.maps.mosaic import open_mosaic

pytest.importorskip("torch")

from training.data.simulator.scene import load_scene

BLOCK, BLOCKS, ZOOM = 16, 16, 18
SIDE = BLOCK * BLOCKS
WORLD_M = 2 * math.pi * 6_378_137
PIXEL_M = WORLD_M / (256 << ZOOM)
LEFT, TOP = (128 << ZOOM) + 4096, (128 << ZOOM) - 4096  # beside the equator, where a Mercator metre is a metre
PLACE = Affine(PIXEL_M, 0, LEFT * PIXEL_M - WORLD_M / 2, 0, -PIXEL_M, WORLD_M / 2 - TOP * PIXEL_M)


def ground(count, dtype, low, high, seed=0):
    """Blocks of one colour each, so that a fraction of a pixel makes no difference at their centres."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(low, high, (count, BLOCKS, BLOCKS)).astype(dtype)
    return np.kron(values, np.ones((1, BLOCK, BLOCK), dtype))


def with_void(bands, value):
    """A quarter in the middle that shows nothing."""
    bands[:, 4 * BLOCK : 12 * BLOCK, 4 * BLOCK : 12 * BLOCK] = value
    return bands


def with_outliers(bands, value):
    bands[:, :: BLOCK // 2, :: 4 * BLOCK] = value  # edges of blocks, half a percent of the pixels
    return bands


def with_strip(bands, value):
    bands[:, BLOCK : 3 * BLOCK, 4 * BLOCK : 12 * BLOCK] = value  # a sixteenth, not at the edge either
    return bands


GREY_ALPHA = np.concatenate([ground(1, np.uint8, 0, 255), with_void(np.full((1, SIDE, SIDE), 255, np.uint8), 0)])
FIVE = ["Blue", "Green", "Red", "Red edge", "NIR"]
INTERPRETATIONS = {
    "near infrared first": [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red],
    "five bands with alpha": [*[ColorInterp.undefined] * 4, ColorInterp.alpha],
}
RASTERS = {
    "bytes": (ground(3, np.uint8, 0, 255), {}),
    "dark bytes": (ground(3, np.uint8, 0, 60), {}),
    "grey": (ground(1, np.uint8, 0, 255), {}),
    "grey and alpha": (GREY_ALPHA, {"alpha": "yes"}),
    "white is zero": (ground(1, np.uint8, 0, 255), {"photometric": "MINISWHITE"}),
    "near infrared first": (ground(4, np.uint8, 0, 255), {}),
    "five bands with alpha": (
        np.concatenate([ground(4, np.uint8, 0, 255), with_void(np.full((1, SIDE, SIDE), 255, np.uint8), 0)]),
        {},
    ),
    "bytes in 16 bits": (ground(3, np.uint16, 0, 255), {}),
    "16 bits": (ground(3, np.uint16, 900, 4200), {}),
    "16 bits with outliers": (with_outliers(ground(3, np.uint16, 900, 4200), 65_000), {}),
    "16 bits with zeros inside": (with_void(ground(3, np.uint16, 900, 4200), 0), {}),
    "signed with voids": (with_void(ground(3, np.int16, -500, 3000), -9999), {}),
    "signed with the lowest number": (with_void(ground(3, np.int32, -500, 3000), -(2**31)), {}),
    "five described bands": (ground(5, np.uint16, 900, 4200), {"photometric": "MINISBLACK"}),
    "fill that nobody knows": (with_void(ground(3, np.float32, 0, 1), -10_000), {}),
    "fill among outliers": (with_outliers(with_void(ground(3, np.int32, 900, 4200), -10_000), -70_000), {}),
    "two kinds of fill": (with_strip(with_void(ground(3, np.float32, 0, 1), -10_000), -5000), {}),
    "floats with an absurd number": (with_void(ground(3, np.float32, 0, 1), -3.4e38), {}),
    "floats": (ground(3, np.float32, 0, 1), {}),
    "floats with holes": (with_void(ground(3, np.float32, 0, 1), np.nan), {}),
    "a declared value": (with_void(ground(3, np.uint16, 900, 4200), 7), {"nodata": 7}),
    "a palette": (ground(1, np.uint8, 0, 16), {"photometric": "palette"}),
}


@pytest.mark.parametrize("name", RASTERS)
def test_both_see_the_same(tmp_path, name):
    bands, profile = RASTERS[name]
    path = tmp_path / "map.tif"
    shape = {"count": len(bands), "height": SIDE, "width": SIDE, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:3857", transform=PLACE, **shape, **profile) as file:
        file.write(bands)
        if name in INTERPRETATIONS:
            file.colorinterp = INTERPRETATIONS[name]
        if len(bands) == 5 and "photometric" in profile:
            file.descriptions = FIVE
        if name == "a palette":
            file.write_colormap(1, {i: (16 * i, 255 - 10 * i, 40, 255 if i % 5 else 0) for i in range(16)})
    with closing(open_mosaic(path)) as mosaic:
        image, valid = mosaic.read(ZOOM, LEFT, TOP, SIDE, SIDE)
    scene = load_scene(path)
    middles = np.arange(BLOCKS) * BLOCK + BLOCK // 2
    service, there = image[np.ix_(middles, middles)].astype(int), valid[np.ix_(middles, middles)]

    _, _, rows, columns = scene.texture.shape
    metres = (middles - SIDE / 2) * PIXEL_M
    i = np.clip((rows / 2 + metres / scene.gsd_m).astype(int), 0, rows - 1)
    j = np.clip((columns / 2 + metres / scene.gsd_m).astype(int), 0, columns - 1)
    training = np.moveaxis(scene.texture[0].numpy()[:, i][:, :, j] * 255, 0, 2).round().astype(int)

    assert np.abs(service - training)[there].max() <= 2
    assert (np.abs(training - 128)[~there] <= 1).all()
    is_grey = (np.abs(training - 128) <= 1).all(axis=2)
    assert (is_grey & there).mean() < 0.02  # nothing that the service sees is missing in training
    assert service[there].std() > 10
