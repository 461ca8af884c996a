"""Small maps of made-up ground."""

import io
import math
import sqlite3
import warnings
import zipfile
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as project
from rasterio.warp import transform_bounds
from rasterio.windows import Window

UTM51 = "EPSG:32651"


@pytest.fixture
def blobs():
    """``blobs(height, width)``: ``[3, H, W]`` of soft spots, unlike at every place."""

    def make(height=240, width=240, seed=0):
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(20, 235, (3, height // 8 + 2, width // 8 + 2))
        rows, columns = np.arange(height) / 8, np.arange(width) / 8
        i, j, u, v = rows.astype(int), columns.astype(int), rows % 1, columns % 1
        u, v = u[:, None], v[None, :]
        top = coarse[:, i][:, :, j] * (1 - v) + coarse[:, i][:, :, j + 1] * v
        bottom = coarse[:, i + 1][:, :, j] * (1 - v) + coarse[:, i + 1][:, :, j + 1] * v
        return (top * (1 - u) + bottom * u).round().astype(np.uint8)

    return make


@pytest.fixture
def write():
    """``write(path, bands, crs, transform, **profile)``: a GeoTIFF."""

    def make(path, bands, crs=UTM51, transform=Affine(1, 0, 499_880, 0, -1, 2_684_000), driver="GTiff", **profile):
        count, height, width = bands.shape
        profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype, **profile}
        if crs is not None:
            profile |= {"crs": crs, "transform": transform}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver=driver, **profile) as file:
                file.write(bands)
        return path

    return make


class Mercator:
    """Web Mercator by its textbook formula, apart from the code under test."""

    @staticmethod
    def pixel_of(lat, lon, zoom):
        """Global pixel coordinates (x right, y down) of places."""
        world = 256 * 2**zoom
        x = (np.asarray(lon) + 180) / 360 * world
        return x, (1 - np.arcsinh(np.tan(np.radians(lat))) / math.pi) / 2 * world

    @staticmethod
    def place_of(x, y, zoom):
        """Latitudes and longitudes of global pixel coordinates."""
        world = 256 * 2**zoom
        lat = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * np.asarray(y) / world))))
        return lat, np.asarray(x) / world * 360 - 180

    @classmethod
    def window(cls, bounds, zoom, margin=0):
        """The rectangle of pixels that holds bounds: left, top, width, height."""
        west, south, east, north = bounds
        left, top = (math.floor(v) - margin for v in cls.pixel_of(north, west, zoom))
        right, bottom = (math.ceil(v) + margin for v in cls.pixel_of(south, east + 360 * (east < west), zoom))
        return left, top, right - left, bottom - top


@pytest.fixture
def mercator():
    return Mercator


@pytest.fixture
def read_all():
    """``read_all(mosaic, zoom)``: RGB, valid, and the rectangle of pixels around the whole map."""

    def read(mosaic, zoom, margin=2):
        window = Mercator.window(mosaic.bounds, zoom, margin)
        return *mosaic.read(zoom, *window), window

    return read


@pytest.fixture
def shift_px():
    """``shift_px(image, valid, window, zoom, bands, crs, transform)``: how far an image lies from where it should.

    Every pixel's place is projected into the raster by itself, and the raster interpolated there; what is left between
    the two is put down to a shift along x and y, in pixels of the image, by least squares over their gradients.
    """

    def measure(image, valid, window, zoom, bands, crs, transform):
        left, top, width, height = window
        x, y = np.meshgrid(left + np.arange(width) + 0.5, top + np.arange(height) + 0.5)
        lat, lon = Mercator.place_of(x, y, zoom)
        back = ~transform
        ex, ny = (np.reshape(v, lat.shape) for v in project("EPSG:4326", crs, lon.ravel(), lat.ravel()))
        columns, rows = back.a * ex + back.b * ny + back.c - 0.5, back.d * ex + back.e * ny + back.f - 0.5
        h, w = bands.shape[1:]
        inside = (columns > 2) & (columns < w - 4) & (rows > 2) & (rows < h - 4) & valid
        assert inside.sum() > 500
        j, i = np.floor(np.where(inside, columns, 0)).astype(int), np.floor(np.where(inside, rows, 0)).astype(int)
        v, u = np.where(inside, columns, 0) - j, np.where(inside, rows, 0) - i
        b = bands.astype(float)
        expected = (
            b[:, i, j] * (1 - u) * (1 - v)
            + b[:, i + 1, j] * u * (1 - v)
            + b[:, i, j + 1] * (1 - u) * v
            + b[:, i + 1, j + 1] * u * v
        )
        found = np.moveaxis(image, 2, 0).astype(float)
        down, across = np.gradient(expected, axis=(1, 2))
        inner = inside.copy()
        inner[[0, -1]] = inner[:, [0, -1]] = False
        inner[1:-1, 1:-1] &= inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        design = np.column_stack([across[:, inner].ravel(), down[:, inner].ravel()])
        rest = (expected - found)[:, inner].ravel()
        shift = np.linalg.lstsq(design, rest, rcond=None)[0]
        return float(np.hypot(*shift)), float(np.abs(rest).mean())

    return measure


def tiles_of(path, zooms):
    """PNG tiles of a GeoTIFF as ``{(z, x, y): bytes}``, warped by rasterio, transparent around the map."""
    tiles = {}
    with rasterio.open(path) as source:
        bounds = transform_bounds(source.crs, "EPSG:4326", *source.bounds)
        for z in zooms:
            left, top, width, height = Mercator.window(bounds, z)
            pixel = 2 * math.pi * 6_378_137 / 256 / 2**z
            for x in range(left // 256, (left + width - 1) // 256 + 1):
                for y in range(top // 256, (top + height - 1) // 256 + 1):
                    west, north = x * 256 * pixel - math.pi * 6_378_137, math.pi * 6_378_137 - y * 256 * pixel
                    grid = {"width": 256, "height": 256, "transform": Affine(pixel, 0, west, 0, -pixel, north)}
                    options = {"crs": "EPSG:3857", "resampling": Resampling.bilinear, "add_alpha": True}
                    with WarpedVRT(source, tolerance=0.01, **grid, **options) as vrt:
                        image = io.BytesIO()
                        Image.fromarray(np.moveaxis(vrt.read(), 0, 2)).save(image, "PNG")
                    tiles[z, x, y] = image.getvalue()
    return tiles


def mbtiles(path, tiles, from_north=False, **metadata):
    """An MBTiles file of such tiles."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE metadata (name text, value text)")
        file.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        file.executemany("INSERT INTO metadata VALUES (?, ?)", ({"format": "png"} | metadata).items())
        rows = [(z, x, y if from_north else 2**z - 1 - y, data) for (z, x, y), data in tiles.items()]
        file.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        file.commit()
    return path


def zip_of(path, entries):
    """A zip of ``{name: bytes}``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in entries.items():
            out.writestr(name, data)
    return path


def crops(path, folder, count=2):
    """A GeoTIFF cut into ``count`` squared, each a file; gives their names and windows."""
    folder.mkdir(exist_ok=True)
    found = {}
    with rasterio.open(path) as source:
        h, w = source.height // count, source.width // count
        for i, j in np.ndindex(count, count):
            window = Window(j * w, i * h, w, h)
            profile = {k: v for k, v in source.profile.items() if k in ("driver", "count", "dtype", "crs")}
            name = f"sheet_{i}{j}.tif"
            with rasterio.open(
                folder / name,
                "w",
                width=w,
                height=h,
                transform=source.transform @ Affine.translation(j * w, i * h),
                **profile,
            ) as out:
                out.write(source.read(window=window))
            found[name] = (folder / name).read_bytes()
    return found


def picture(bands, kind="PNG", **options):
    """An image file of bands ``[3, H, W]``."""
    out = io.BytesIO()
    Image.fromarray(np.moveaxis(bands, 0, 2)).save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def make():
    """What else writes maps: ``make.tiles_of``, ``make.mbtiles``, ``make.zip_of``, ``make.crops``, ``make.picture``."""
    return SimpleNamespace(tiles_of=tiles_of, mbtiles=mbtiles, zip_of=zip_of, crops=crops, picture=picture)
