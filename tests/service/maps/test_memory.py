"""Maps of any size are read in bounded memory, with overviews or without, whatever they are stored in."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rasterio
from rasterio._err import CPLE_OutOfMemoryError
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine

from service.errors import OutOfMemory
from service.maps.gdal import calling
from service.maps.pyramid import decode_tile

READ = """
import json, math, resource, sys
from pathlib import Path
from service.maps.mosaic import open_mosaic

def grown_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = grown_kib()
mosaic = open_mosaic(Path(sys.argv[1]))
west, south, east, north = mosaic.bounds
shares = []
for zoom, side in ((18, 1536), (15, 512), (12, 128), (9, 16)):
    world = 256 << zoom
    x = ((west + east) / 2 + 180) / 360 * world
    y = (1 - math.asinh(math.tan(math.radians((south + north) / 2))) / math.pi) / 2 * world
    _, valid = mosaic.read(zoom, int(x) - side // 2, int(y) - side // 2, side, side)
    shares.append(float(valid.mean()))
print(json.dumps([grown_kib() - before, shares]))
"""

PICTURE_PX = 1500
LIMIT_KIB = 450_000


def write_mostly_nothing(path, side_px, dtype, **profile):
    """A huge file that takes little disk: 1,500 pixels of noise in its middle."""
    place = Affine(0.5, 0, 500_000 - side_px / 4, 0, -0.5, 2_684_000)
    shape = {"width": side_px, "height": side_px, "count": 3, "dtype": dtype}
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:32651", transform=place, sparse_ok=True, bigtiff="yes", **shape, **profile
    ) as file:
        noise = np.random.default_rng(0).integers(1, 255, (3, PICTURE_PX, PICTURE_PX)).astype(dtype)
        first = (side_px - PICTURE_PX) // 2
        file.write(noise, window=((first, first + PICTURE_PX), (first, first + PICTURE_PX)))
    return path


@pytest.mark.parametrize(
    ("side_px", "dtype", "profile"),
    [
        (60_000, "uint8", {"tiled": True, "blockxsize": 512, "blockysize": 512}),  # 10 GB
        (40_000, "uint8", {"blockysize": 1}),
        (16_000, "float64", {"tiled": True, "blockxsize": 1024, "blockysize": 1024, "interleave": "pixel"}),  # 6 GB
    ],
    ids=["tiles", "strips", "large numbers"],
)
def test_huge_maps_without_overviews(tmp_path, side_px, dtype, profile):
    path = write_mostly_nothing(tmp_path / "huge.tif", side_px, dtype, **profile)
    child = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, env={})
    assert child.returncode == 0, child.stderr
    grown_kib, shares = json.loads(child.stdout)
    assert grown_kib < LIMIT_KIB
    assert shares[0] > 0.5
    assert all(shares)


def test_a_map_in_huge_blocks_names_the_command_that_cuts_them(tmp_path, write, blobs, monkeypatch):
    from service.errors import SourceUnreadable
    from service.maps.mosaic import open_mosaic

    path = write(tmp_path / "map.tif", blobs(256, 256), tiled=True, blockxsize=256, blockysize=256)
    monkeypatch.setattr("service.maps.gdal.MAX_BLOCK_BYTES", 60_000)
    with pytest.raises(SourceUnreadable, match=r"gdal_translate -co TILED=YES map\.tif"):
        open_mosaic(path)
    write(tmp_path / "tiled.tif", blobs(256, 256), tiled=True, blockxsize=64, blockysize=64)
    open_mosaic(tmp_path / "tiled.tif").close()


@pytest.mark.parametrize("reason", [MemoryError(), CPLE_OutOfMemoryError(3, 2, "cannot allocate 1 GB")])
def test_memory_that_is_not_there_is_no_damage(reason):
    failed = RasterioIOError("read failed")
    failed.__cause__ = reason
    with pytest.raises(OutOfMemory, match=r"not enough memory to read map\.tif"), calling("map.tif"):
        raise failed


def test_a_tile_that_finds_no_memory_is_no_damaged_one(monkeypatch, ground, encode_image):
    def load(self):
        raise MemoryError

    data = encode_image(ground(1, 64, 64))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(OutOfMemory):
        decode_tile(data)
