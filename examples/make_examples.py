"""Make the demo area and its photos: ``python examples/make_examples.py``.

Everything is drawn: the town by ``town.town``, the photos by our own simulator flying over it. The place is on
the Dogger Bank in the North Sea, where nobody lives; it lies on a UTM central meridian, so grid north is true north.
All seeds are fixed: every machine makes the same pictures, if not the same bytes.

Writes next to this file ``town.tif``, ``photos/photo-N.jpg`` and ``truth.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import rasterio.warp
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from PIL.ExifTags import GPS, IFD, Base
from PIL.TiffImagePlugin import IFDRational
from rasterio.io import MemoryFile

from town.town import Town, make_town
from training.data.simulator.render import Camera, render, surface_m
from training.data.simulator.scene import Scene

HERE = Path(__file__).parent
SEED = 3
SIZE_M = 619.2  # 7.2 × 86 m
MAP_GSD_M, DRAWN_GSD_M = 0.3, 0.15  # photos are rendered from the finer drawing: a drone sees more than the map shows
CRS, EAST0_M, NORTH0_M = "EPSG:32631", 500_000.0, 6_061_000.0  # map centre, 54.7 N 3.0 E
WIDTH, HEIGHT = 1280, 960
FOCAL_35MM = 26
HFOV_DEG = math.degrees(2 * math.atan(36 / (2 * FOCAL_35MM)))  # 69.4°
SHORT_SIDE_M = 92.0  # what the photo's short side covers on the ground at the image centre


@dataclass(frozen=True)
class Shot:
    """What to photograph: ground point in metres from the map's centre, and how to look at it."""

    east_m: float
    north_m: float
    heading_deg: float
    pitch_deg: float


SHOTS = [
    Shot(-122.0, -132.0, 118.0, 88.0),  # market square and river
    Shot(112.0, 62.0, 203.0, 84.0),  # running track
    Shot(62.0, 190.0, 291.0, 81.0),  # bungalows
    Shot(20.0, -22.0, 37.0, 90.0),  # bridge and park
    Shot(96.0, -38.0, 246.0, 70.0),  # footbridge
    Shot(-221.0, 12.0, 74.0, 66.0),  # terraces
]


def write_map(town: Town, path: Path) -> None:
    """Write the orthophoto as a tiled JPEG GeoTIFF with overviews."""
    rgb = np.asarray(Image.fromarray(town.rgb).reduce(round(MAP_GSD_M / town.gsd_m)))
    rows, columns = rgb.shape[:2]
    corner = (EAST0_M - columns * MAP_GSD_M / 2, NORTH0_M + rows * MAP_GSD_M / 2)
    profile = {
        "driver": "GTiff",
        "width": columns,
        "height": rows,
        "count": 3,
        "dtype": "uint8",
        "crs": CRS,
        "transform": rasterio.transform.from_origin(*corner, MAP_GSD_M, MAP_GSD_M),
        "photometric": "RGB",
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as source:
            source.write(rgb.transpose(2, 0, 1))
        with memory.open() as source:
            # the COG driver tiles, adds overviews, and stores JPEG as YCbCr
            rasterio.shutil.copy(source, path, driver="COG", compress="JPEG", quality=78, blocksize=256)


def to_scene(town: Town) -> Scene:
    """The town as the simulator wants it; heights on cells of 0.3 m, smoothed so that slanting eaves have no teeth."""
    texture = torch.from_numpy(town.rgb.copy()).permute(2, 0, 1)[None].float() / 255
    cells = round(SIZE_M / 0.3)
    height = np.asarray(Image.fromarray(town.height_m).resize((cells, cells), Image.Resampling.BOX)).copy()
    smooth = torch.from_numpy(height)[None]
    for _ in range(2):
        smooth = torch.nn.functional.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    return Scene(texture, smooth, town.gsd_m)


def aim(scene: Scene, shot: Shot) -> Camera:
    """The pose from which the photo's short side covers ``SHORT_SIDE_M`` at the shot's ground point."""
    away = SHORT_SIDE_M / 2 / (math.tan(math.radians(HFOV_DEG) / 2) * HEIGHT / WIDTH)
    ground = float(surface_m(scene, torch.tensor([[[shot.east_m, shot.north_m]]]))[0, 0])
    back = away * math.cos(math.radians(shot.pitch_deg))
    return Camera.single(
        shot.east_m - back * math.sin(math.radians(shot.heading_deg)),
        shot.north_m - back * math.cos(math.radians(shot.heading_deg)),
        ground + away * math.sin(math.radians(shot.pitch_deg)),
        shot.heading_deg,
        shot.pitch_deg,
        HFOV_DEG,
    )


def develop(image: NDArray[np.float32], rng: np.random.Generator) -> Image.Image:
    """What a small camera makes of the light: exposure, white balance, contrast, vignetting, lens blur and noise.

    Args:
        image: ``[2·HEIGHT, 2·WIDTH, 3]``, 0–1; every pixel of the photo averages four rays.
        rng: source of this photo's settings and noise.
    """
    fine = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    light = np.asarray(fine.reduce(2).filter(ImageFilter.GaussianBlur(0.5)), np.float32) / 255
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light = light * (1 - 0.1 * (x**2 + (HEIGHT / WIDTH * y) ** 2))[..., None]
    light = light * rng.uniform(0.97, 1.12) * (1 + rng.normal(0, 0.02, 3))
    contrast = rng.uniform(1.0, 1.1)
    light = 0.42 + contrast * (light - 0.42) + rng.normal(0, 0.012, (HEIGHT, WIDTH, 1))
    return Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))


def _dms(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds as EXIF wants them; a ten-thousandth of a second is 3 mm."""
    ten_thousandths = round(abs(degrees) * 3600 * 10_000)
    minutes, seconds = divmod(ten_thousandths, 60 * 10_000)
    return IFDRational(minutes // 60), IFDRational(minutes % 60), IFDRational(seconds, 10_000)


def exif(lat: float, lon: float, alt_m: float, minute: int) -> Image.Exif:
    """What a drone's camera notes down: where *it* is, when, and its focal length; no heading."""
    tags = Image.Exif()
    tags[Base.Make], tags[Base.Model] = "aerofix", "simulator"
    stamp = f"2025:06:14 10:{minute:02d}:00"
    tags[Base.DateTime] = stamp
    tags[IFD.Exif] = {Base.DateTimeOriginal: stamp, Base.FocalLengthIn35mmFilm: FOCAL_35MM}
    tags[IFD.GPSInfo] = {
        GPS.GPSVersionID: b"\x02\x03\x00\x00",
        GPS.GPSLatitudeRef: "N" if lat >= 0 else "S",
        GPS.GPSLatitude: _dms(lat),
        GPS.GPSLongitudeRef: "E" if lon >= 0 else "W",
        GPS.GPSLongitude: _dms(lon),
        GPS.GPSAltitudeRef: b"\x00",
        GPS.GPSAltitude: IFDRational(round(alt_m * 100), 100),
    }
    return tags


def place(east_m: float, north_m: float) -> tuple[float, float]:
    """Latitude and longitude of a point of the scene."""
    lon, lat = rasterio.warp.transform(CRS, "EPSG:4326", [EAST0_M + east_m], [NORTH0_M + north_m])
    return round(lat[0], 7), round(lon[0], 7)


def photograph(scene: Scene, number: int, shot: Shot, folder: Path) -> dict[str, Any]:
    """Render one photo, write it, and return its entry in ``truth.json``, in the form of ``aerofix-train simulate``."""
    camera = aim(scene, shot)
    views = render(scene, camera, 2 * WIDTH, 2 * HEIGHT)
    if not bool(views.valid.all()):
        raise ValueError(f"photo {number} looks over the edge of the map; move its ground point inwards")
    photo = develop(views.image[0].permute(1, 2, 0).numpy(), np.random.default_rng(100 + number))
    drone_east_m, drone_north_m, up_m = (float(v) for v in camera.position[0])
    ground_east_m, ground_north_m, ground_up_m = (float(v) for v in views.centre[0])
    (lat, lon), (drone_lat, drone_lon) = place(ground_east_m, ground_north_m), place(drone_east_m, drone_north_m)
    name = f"photo-{number}.jpg"
    photo.save(folder / name, quality=88, exif=exif(drone_lat, drone_lon, up_m, 10 + 2 * number))
    return {
        "file": name,
        "position": {"lat": lat, "lon": lon},
        "camera": {
            "lat": drone_lat,
            "lon": drone_lon,
            "up_m": round(up_m, 2),
            "height_above_ground_m": round(up_m - ground_up_m, 2),
            "heading_deg": shot.heading_deg,
            "pitch_deg": shot.pitch_deg,
            "hfov_deg": round(HFOV_DEG, 3),
        },
    }


def main(folder: Path = HERE) -> None:
    """Make the map, the photos and their truth in ``folder``."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    town = make_town(SEED, SIZE_M, DRAWN_GSD_M)
    write_map(town, folder / "town.tif")
    scene = to_scene(town)
    truth = [photograph(scene, n, shot, folder / "photos") for n, shot in enumerate(SHOTS, start=1)]
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")


if __name__ == "__main__":
    main()
