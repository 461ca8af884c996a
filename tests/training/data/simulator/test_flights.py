import json
import math

import numpy as np
import pytest
import rasterio.warp
from PIL import Image

from training.data.simulator.flights import PHOTO_PX, simulate_flight
from training.data.simulator.scene import load_scene

UTM, WEST, NORTH = "EPSG:32651", 499_800.0, 2_680_000.0


@pytest.fixture(scope="module")
def flight(tmp_path_factory, write_tiff, waves):
    """Four photos over a flat map of 400 m by 300 m: ``(folder, scene, truth.json)``."""
    folder = tmp_path_factory.mktemp("flight")
    east, north = np.meshgrid(np.arange(400) + 0.5 - 200, 150 - np.arange(300) - 0.5)
    colours = waves(np.column_stack((east.ravel(), north.ravel()))).reshape(300, 400, 3)
    pixels = (colours * 255).round().astype(np.uint8).transpose(2, 0, 1)
    map_path = write_tiff(folder / "map.tif", pixels, UTM, WEST, NORTH, 1.0)
    flat = np.full((1, 50, 60), 87.0, np.float32)
    height_path = write_tiff(folder / "dem.tif", flat, UTM, WEST - 100, NORTH + 100, 10.0)
    assert simulate_flight(map_path, folder / "out", 4, height_path=height_path, seed=5) == 4
    return folder / "out", load_scene(map_path, height_path), json.loads((folder / "out/truth.json").read_text())


def local_m(scene, place):
    """East, north in metres from the scene's centre, through UTM: the map's own metres, turned by its convergence."""
    (lat0, lon0), points = scene.origin, [(place["lat"], place["lon"])]
    lats, lons = [lat0, points[0][0]], [lon0, points[0][1]]
    east, north = rasterio.warp.transform("EPSG:4326", UTM, lons, lats)
    return np.array([east[1] - east[0], north[1] - north[0]]) / 0.9996  # at the central meridian: no convergence


def test_every_photo_has_its_truth(flight):
    folder, _, truths = flight
    assert [t["file"] for t in truths] == [f"photo-{i:04d}.jpg" for i in range(1, 5)]
    for each in truths:
        with Image.open(folder / each["file"]) as image:
            assert image.size == PHOTO_PX


def test_truth_is_what_the_homography_says(flight, flat_ground):
    _, scene, truths = flight
    width, height = PHOTO_PX
    corners = [(width / 2, height / 2), (0, 0), (width, 0), (width, height), (0, height)]
    for each in truths:
        camera = each["camera"]
        pose = (*local_m(scene, camera), *(camera[k] for k in ("up_m", "heading_deg", "pitch_deg", "hfov_deg")))
        expected = flat_ground(pose, corners, width, height)
        seen = [each["position"], *each["footprint"]]
        assert seen[0] is not None
        for place, ground in zip(seen, expected, strict=True):
            if place is None:
                assert not (np.abs(ground) < (199, 149)).all()
            else:
                # angles are rounded to 0.01°: 2 cm at 130 m, more where the view is flat
                np.testing.assert_allclose(local_m(scene, place), ground, atol=0.15)


def test_photos_show_the_ground_that_truth_names(flight, flat_ground, waves):
    folder, scene, truths = flight
    width, height = PHOTO_PX
    for each in truths:
        camera = each["camera"]
        pose = (*local_m(scene, camera), *(camera[k] for k in ("up_m", "heading_deg", "pitch_deg", "hfov_deg")))
        pixels = np.array([(c + 0.5, r + 0.5) for r in range(100, height, 150) for c in range(100, width, 150)])
        ground = flat_ground(pose, pixels, width, height)
        inside = (np.abs(ground) < (195, 145)).all(1)
        with Image.open(folder / each["file"]) as image:
            colours = np.array(image)[pixels[:, 1].astype(int), pixels[:, 0].astype(int)] / 255
        assert inside.sum() > 10
        np.testing.assert_allclose(colours[inside], waves(ground[inside]), atol=0.06)


def test_poses_are_as_described(flight):
    for each in flight[2]:
        camera = each["camera"]
        assert 80 <= camera["up_m"] <= 130
        assert 45 <= camera["pitch_deg"] <= 90
        assert 50 <= camera["hfov_deg"] <= 75
        assert 0 <= camera["heading_deg"] <= 360
        assert math.isfinite(camera["lat"])


def test_the_seed_decides(flight, tmp_path):
    folder = flight[0]
    again, other = tmp_path / "again", tmp_path / "other"
    maps = folder.parent / "map.tif", folder.parent / "dem.tif"
    simulate_flight(maps[0], again, 1, height_path=maps[1], seed=5)
    simulate_flight(maps[0], other, 1, height_path=maps[1], seed=6)
    first = "photo-0001.jpg"
    assert (again / first).read_bytes() == (folder / first).read_bytes() != (other / first).read_bytes()
