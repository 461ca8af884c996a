"""A scene: an orthophoto and the height of the ground under it, in a local metric frame.

Frame: metres ``(east, north, up)`` from the scene's centre. Row 0 of every raster is its north edge. The texture and
the height field cover the same rectangle, each at its own resolution; the centre of texture pixel ``(row, col)`` lies
at ``east = (col + 0.5 - W / 2) * gsd_m`` and ``north = (H / 2 - row - 0.5) * gsd_m``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
import torch
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from torch import Tensor

from training.data.simulator.bands import read_rgb
from training.errors import TrainingError

#: Cell of the height field in metres. One metre keeps walls within a pixel of a 120 m flight and marching cheap.
HEIGHT_CELL_M = 1.0
#: The only drivers that GDAL may use, whatever a file is called: others read further files, or the network (VRT, WMS).
DRIVERS = ["GTiff", "JPEG", "PNG", "WEBP", "JP2OpenJPEG", "GPKG"]


@dataclass(frozen=True)
class Scene:
    """One scene, or a batch of equally large ones.

    Attributes:
        texture: ``[B, 3, H, W]`` float32 RGB, 0 to 1.
        height_m: ``[B, h, w]`` float32 metres above the scene's datum, over the same rectangle.
        gsd_m: side of a texture pixel on the ground, in metres.
        origin: ``(lat, lon)`` WGS84 of the centre, or None for a texture of unknown place.
    """

    texture: Tensor
    height_m: Tensor
    gsd_m: float
    origin: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.texture.ndim != 4 or self.texture.shape[1] != 3:
            raise TrainingError(f"A scene's texture must have shape [B, 3, H, W], not {list(self.texture.shape)}.")
        if self.height_m.ndim != 3 or self.height_m.shape[0] != self.texture.shape[0]:
            raise TrainingError(f"A scene's heights must have shape [B, h, w], not {list(self.height_m.shape)}.")

    @property
    def width_m(self) -> float:
        """East-west extent in metres."""
        return float(self.texture.shape[3] * self.gsd_m)

    @property
    def depth_m(self) -> float:
        """North-south extent in metres."""
        return float(self.texture.shape[2] * self.gsd_m)

    def to(self, device: torch.device | str) -> Scene:
        """Move both rasters to a device."""
        return Scene(self.texture.to(device), self.height_m.to(device), self.gsd_m, self.origin)

    def latlon(self, east_m: float, north_m: float) -> tuple[float, float]:
        """Return the WGS84 position of a point of the local frame (the inverse of the projection used when loading)."""
        if self.origin is None:
            raise TrainingError("This scene has no place on Earth: load it from a georeferenced raster.")
        lon, lat = rasterio.warp.transform(_local_crs(*self.origin), "EPSG:4326", [east_m], [north_m])
        return float(lat[0]), float(lon[0])


def _local_crs(lat: float, lon: float) -> str:
    """Transverse Mercator centred on the scene: metres that are true to 1e-7 over a few kilometres."""
    return f"+proj=tmerc +lat_0={lat:.9f} +lon_0={lon:.9f} +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m"


def load_scene(
    path: Path, height_path: Path | None = None, *, gsd_m: float | None = None, seed: int = 0, max_px: int = 8192
) -> Scene:
    """Load an orthophoto (any GeoTIFF) as a scene; without a height raster, raise blocks procedurally.

    Args:
        path: georeferenced raster of any bands and depth (see ``bands``); pixels without data become grey.
        height_path: raster of heights in metres, any projection and resolution that covers the map. The lowest point
            becomes the datum.
        gsd_m: metres per texture pixel; by default the raster's own.
        seed: of the procedural blocks (see ``raise_blocks``).
        max_px: refuse maps that are longer than this on a side at ``gsd_m``: a scene lives in memory.

    Raises:
        TrainingError: the file is unreadable, not georeferenced, or too large.
    """
    try:
        with rasterio.Env(), DatasetReader(str(path), driver=DRIVERS) as source:
            if source.crs is None:
                raise TrainingError(
                    f"{path} has no georeference. Give a GeoTIFF, or add one with gdal_translate -a_ullr."
                )
            west, south, east, north = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds)
            origin = ((south + north) / 2, (west + east) / 2)
            with WarpedVRT(source, crs=_local_crs(*origin)) as native:
                gsd = gsd_m or float(native.res[0])
                reach_e = min(-native.bounds.left, native.bounds.right)
                reach_n = min(-native.bounds.bottom, native.bounds.top)
            cols, rows = int(2 * reach_e / gsd), int(2 * reach_n / gsd)
            if max(cols, rows) > max_px:
                raise TrainingError(
                    f"{path} is {cols} by {rows} px at {gsd:.2f} m/px, over {max_px} px. "
                    "Give a larger gsd_m, or cut the map."
                )
            rgb = _picture(source, origin, gsd, cols, rows)
        if height_path is None:
            height = raise_blocks(cols * gsd, rows * gsd, np.random.default_rng(seed))
        else:
            with rasterio.Env(), DatasetReader(str(height_path), driver=DRIVERS) as dem:
                h_cols, h_rows = max(2, round(cols * gsd / HEIGHT_CELL_M)), max(2, round(rows * gsd / HEIGHT_CELL_M))
                height = _warp(dem, origin, cols * gsd / h_cols, h_cols, h_rows, rows * gsd / h_rows)
                height = height - height.min()
    except RasterioIOError as error:
        fix = "Give a GeoTIFF, or a raster that is read here: " + ", ".join(DRIVERS)
        raise TrainingError(f"Cannot read {error}. {fix}.") from error
    return Scene(torch.from_numpy(rgb)[None], torch.from_numpy(height.astype(np.float32))[None], gsd, origin)


def _picture(
    source: rasterio.DatasetReader, origin: tuple[float, float], gsd: float, cols: int, rows: int
) -> NDArray[np.float32]:
    """The raster in the local frame, centred on ``origin``: ``[3, rows, cols]`` in 0..1, grey where nothing is."""
    shrink = max(1, min(source.width // (2 * cols), source.height // (2 * rows)))  # the warper averages the rest
    shape = -(-source.height // shrink), -(-source.width // shrink)
    rgb, valid = read_rgb(source, shape)
    rgba = np.zeros((4, rows, cols), np.uint8)
    across, down = source.width / shape[1], source.height / shape[0]
    rasterio.warp.reproject(
        np.concatenate([rgb, valid[None] * np.uint8(255)]),
        rgba,
        src_crs=source.crs,
        src_transform=source.transform @ rasterio.Affine.scale(across, down),
        dst_crs=_local_crs(*origin),
        dst_transform=_grid(gsd, gsd, cols, rows),
        src_alpha=4,
        dst_alpha=4,
        resampling=Resampling.bilinear,
    )
    return np.where(rgba[3] > 0, rgba[:3].astype(np.float32) / 255, np.float32(0.5))


def _warp(
    source: rasterio.DatasetReader, origin: tuple[float, float], gsd_e: float, cols: int, rows: int, gsd_n: float
) -> NDArray[np.float32]:
    """The first band resampled into the local frame, centred on ``origin``: ``[rows, cols]``."""
    grid = {"transform": _grid(gsd_e, gsd_n, cols, rows), "width": cols, "height": rows}
    with WarpedVRT(source, crs=_local_crs(*origin), resampling=Resampling.bilinear, **grid) as vrt:
        pixels: NDArray[np.float32] = vrt.read(1).astype(np.float32)
        return pixels


def _grid(gsd_e: float, gsd_n: float, cols: int, rows: int) -> rasterio.Affine:
    """From pixels to metres east and north of the centre."""
    return rasterio.Affine(gsd_e, 0, -cols * gsd_e / 2, 0, -gsd_n, rows * gsd_n / 2)


def raise_blocks(
    width_m: float, depth_m: float, rng: np.random.Generator, *, cover: float = 0.12, cell_m: float = HEIGHT_CELL_M
) -> NDArray[np.float32]:
    """Make heights for a map that has none: rolling ground, with turned boxes of 3 to 15 m for buildings.

    The boxes do not know the picture under them. They give views the occlusion and parallax of a built place, which is
    what training needs; they are no surface model.

    Args:
        width_m: east-west extent in metres.
        depth_m: north-south extent in metres.
        rng: the source of all randomness.
        cover: share of the ground under boxes, about.
        cell_m: side of a height cell in metres.

    Returns:
        ``[h, w]`` float32 metres, lowest point 0.
    """
    w, h = max(2, round(width_m / cell_m)), max(2, round(depth_m / cell_m))
    north, east = np.mgrid[0:h, 0:w] * cell_m
    height = np.zeros((h, w))
    for _ in range(3):  # three long waves, up to 2 m each
        direction, wave_m, phase = rng.uniform(0, 2 * np.pi), rng.uniform(150, 500), rng.uniform(0, 2 * np.pi)
        along = east * np.cos(direction) + north * np.sin(direction)
        height += rng.uniform(0, 2) * np.sin(2 * np.pi * along / wave_m + phase)
    ground, mean_box_m2 = height.copy(), 150.0
    for _ in range(int(cover * width_m * depth_m / mean_box_m2)):
        e0, n0, turn = rng.uniform(0, width_m), rng.uniform(0, depth_m), rng.uniform(0, np.pi)
        half_a, half_b, tall = rng.uniform(3, 9), rng.uniform(3, 9), rng.uniform(3, 15)
        reach = int(np.hypot(half_a, half_b) / cell_m) + 2
        r0, c0 = int(n0 / cell_m), int(e0 / cell_m)
        patch = np.s_[max(0, r0 - reach) : r0 + reach, max(0, c0 - reach) : c0 + reach]
        de, dn = east[patch] - e0, north[patch] - n0
        inside = (np.abs(de * np.cos(turn) + dn * np.sin(turn)) < half_a) & (
            np.abs(dn * np.cos(turn) - de * np.sin(turn)) < half_b
        )
        height[patch] = np.where(inside, np.maximum(height[patch], ground[patch] + tall), height[patch])
    relief: NDArray[np.float32] = (height - height.min()).astype(np.float32)
    return relief
