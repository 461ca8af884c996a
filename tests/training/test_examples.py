"""The committed demo area and photos: georeferenced, consistent with their truth, and showing what the truth says.

The photos are compared with views over the committed map on flat ground: another texture, another height field and
another way to the pose (through latitude and longitude) than the one that made them.
"""

import datetime
import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.warp
import torch
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from training.data.simulator.render import Camera, render
from training.data.simulator.scene import Scene

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRUTH = json.loads((EXAMPLES / "truth.json").read_text())
LOW = (64, 48)
photos = pytest.mark.parametrize("truth", TRUTH, ids=[Path(t["file"]).stem for t in TRUTH])


@pytest.fixture(scope="module")
def town():
    with rasterio.open(EXAMPLES / "town.tif") as source:
        texture = torch.from_numpy(source.read()).float()[None] / 255
        flat = torch.zeros(1, 64, 64)
        middle = source.xy(source.height / 2 - 0.5, source.width / 2 - 0.5)
        return Scene(texture, flat, source.res[0]), source.crs, middle, source.bounds


def metres(town, lat, lon):
    (x,), (y,) = rasterio.warp.transform("EPSG:4326", town[1], [lon], [lat])
    return float(x - town[2][0]), float(y - town[2][1])


def test_map_is_a_small_tiled_jpeg_geotiff_with_overviews():
    path = EXAMPLES / "town.tif"
    with rasterio.open(path) as source:
        assert source.crs.is_projected
        assert source.res == (0.3, 0.3)
        assert source.profile["tiled"]
        assert source.profile["compress"] == "jpeg"
        assert source.profile["photometric"] == "ycbcr"
        assert len(source.overviews(1)) >= 3
        lon, lat = source.lnglat()
    assert (lat, lon) == (pytest.approx(54.7, abs=0.01), pytest.approx(3.0, abs=0.01))
    assert path.stat().st_size < 3_000_000


def test_grid_north_is_true_north(town):
    """Headings hold on the map as they are: two points of one longitude lie on a vertical line."""
    south, north = metres(town, 54.6950, 3.001), metres(town, 54.6975, 3.001)
    assert math.degrees(math.atan2(north[0] - south[0], north[1] - south[1])) == pytest.approx(0, abs=0.01)


@photos
def test_photo_shows_a_whole_tile_of_the_map(town, truth):
    east, north = metres(town, **truth["position"])
    half = (town[3].right - town[3].left) / 2
    assert max(abs(east), abs(north)) < half - 60


@photos
def test_pose_points_at_the_ground_point(town, truth):
    """Ground point = drone + height / tan(pitch) along the heading."""
    camera = truth["camera"]
    ground, drone = metres(town, **truth["position"]), metres(town, camera["lat"], camera["lon"])
    ahead = camera["height_above_ground_m"] / math.tan(math.radians(camera["pitch_deg"]))
    heading = math.radians(camera["heading_deg"])
    assert ground[0] - drone[0] == pytest.approx(ahead * math.sin(heading), abs=0.1)
    assert ground[1] - drone[1] == pytest.approx(ahead * math.cos(heading), abs=0.1)


@photos
def test_exif_tells_the_drone_position_and_lens_but_no_heading(truth):
    with Image.open(EXAMPLES / "photos" / truth["file"]) as photo:
        tags = photo.getexif()
        gps, lens = tags.get_ifd(IFD.GPSInfo), tags.get_ifd(IFD.Exif)
    camera = truth["camera"]

    def degrees(dms):
        return float(dms[0]) + float(dms[1]) / 60 + float(dms[2]) / 3600

    assert (gps[GPS.GPSLatitudeRef], gps[GPS.GPSLongitudeRef]) == ("N", "E")
    assert degrees(gps[GPS.GPSLatitude]) == pytest.approx(camera["lat"], abs=1e-7)
    assert degrees(gps[GPS.GPSLongitude]) == pytest.approx(camera["lon"], abs=1e-7)
    assert float(gps[GPS.GPSAltitude]) == pytest.approx(camera["up_m"], abs=0.01)
    assert 0 <= camera["up_m"] - camera["height_above_ground_m"] < 8  # terrain
    assert GPS.GPSImgDirection not in gps
    assert datetime.datetime.strptime(lens[Base.DateTimeOriginal], "%Y:%m:%d %H:%M:%S")
    hfov = 2 * math.atan(36 / (2 * lens[Base.FocalLengthIn35mmFilm]))
    assert math.degrees(hfov) == pytest.approx(camera["hfov_deg"], abs=0.001)


def seen(town, truth, *, heading_deg=0.0, east_m=0.0):
    """The low-resolution view that the truth promises, normalised in brightness and contrast."""
    camera = truth["camera"]
    east, north = metres(town, camera["lat"], camera["lon"])
    position = (east + east_m, north, camera["height_above_ground_m"])
    pose = Camera.single(*position, camera["heading_deg"] + heading_deg, camera["pitch_deg"], camera["hfov_deg"])
    image = render(town[0], pose, 4 * LOW[0], 4 * LOW[1]).image
    return normal(torch.nn.functional.avg_pool2d(image, 4)[0].permute(1, 2, 0).numpy())


def normal(image):
    return (image - image.mean()) / image.std()


@photos
def test_photo_is_the_view_of_its_truth(town, truth):
    """Mean absolute difference under 0.6 standard deviations; 15° or 12 m off are half as bad again."""
    photo = Image.open(EXAMPLES / "photos" / truth["file"]).resize(LOW, Image.Resampling.BOX)
    photo = normal(np.asarray(photo, np.float32))
    right = np.abs(seen(town, truth) - photo).mean()
    assert right < 0.6
    for wrong in ({"heading_deg": 15}, {"heading_deg": -15}, {"heading_deg": 180}, {"east_m": 12}, {"east_m": -12}):
        assert np.abs(seen(town, truth, **wrong) - photo).mean() > 1.5 * right
