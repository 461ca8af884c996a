"""Tiny generated copies of the data sets' folders. Every image has a colour of its own."""

import hashlib
import json
from types import SimpleNamespace

import pytest
from PIL import Image

SIZE = 16


def colour_of(relative_path):
    """RGB of the image at this path, counted from the data set's root."""
    return tuple(hashlib.sha256(str(relative_path).encode()).digest()[:3])


@pytest.fixture(scope="session")
def colour():
    return colour_of


@pytest.fixture
def size():
    return SimpleNamespace(image_size=SIZE, resize="squash")


@pytest.fixture
def paint(tmp_path):
    """``paint("a/b.jpg", …)`` writes images of the paths' colours under ``tmp_path``."""

    def write(*paths, shape=(24, 20)):
        for path in paths:
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", shape, colour_of(path)).save(file, quality=95)

    return write


@pytest.fixture
def university(tmp_path, paint):
    """Two training buildings; two test buildings and a distractor; 2 or 3 drone images of each."""
    for name, photos in (("0001", 3), ("0005", 2)):
        paint(*(f"train/drone/{name}/image-{i:02d}.jpeg" for i in range(1, photos + 1)))
        paint(f"train/satellite/{name}/{name}.jpg")
    for name in ("0002", "0003", "0009"):
        views = ["gallery"] + ["query"] * (name != "0009")
        paint(*(f"test/{view}_drone/{name}/image-{i:02d}.jpeg" for view in views for i in (1, 2)))
        paint(*(f"test/{view}_satellite/{name}/{name}.jpg" for view in views))
    return tmp_path


SUES_TRAINING, SUES_TEST, SUES_HEIGHTS = ("0001", "0002"), ("0008", "0012"), (150, 200, 250, 300)


@pytest.fixture
def sues_raw(tmp_path, paint):
    """Two places of either part of the official split, two drone images at each height."""
    for name in (*SUES_TRAINING, *SUES_TEST):
        paint(f"satellite-view/{name}/0.png")
        paint(*(f"drone_view_512/{name}/{h}/{i}.jpg" for h in SUES_HEIGHTS for i in (0, 1)))
    return tmp_path


@pytest.fixture
def sues_split(tmp_path, paint):
    """The same places after the authors' script."""
    for h in SUES_HEIGHTS:
        for name in SUES_TRAINING:
            paint(f"Training/{h}/satellite/{name}/0.png", *(f"Training/{h}/drone/{name}/{i}.jpg" for i in (0, 1)))
        for name in (*SUES_TRAINING, *SUES_TEST):
            for view in ["gallery"] + ["query"] * (name in SUES_TEST):
                paint(f"Testing/{h}/{view}_satellite/{name}/0.png")
                paint(*(f"Testing/{h}/{view}_drone/{name}/{i}.jpg" for i in (0, 1)))
    return tmp_path


@pytest.fixture
def denseuav(tmp_path, paint):
    """Two training points and two test points; longitude comes first in some lines and last in others."""
    lines = []
    for i, name in enumerate(("000001", "000002", "000007", "000008")):
        part, query, gallery = ("train", "", "") if i < 2 else ("test", "query_", "gallery_")
        for role in {query, gallery} | ({"gallery_"} if i >= 2 else set()):
            paint(*(f"{part}/{role}drone/{name}/H{h}.JPG" for h in (80, 90)))
            paint(*(f"{part}/{role}satellite/{name}/H{h}{age}.tif" for h in (80, 90) for age in ("", "_old")))
        lat, lon = f"N{30 + i / 1000}", f"E{120 + i / 1000}"
        first, second = (lat, lon) if i % 2 else (lon, lat)
        lines += [f"{part}/{query}drone/{name}/H{h}.JPG {first} {second} {h}.5" for h in (80, 90)]
    (tmp_path / "Dense_GPS_ALL.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


VIGOR_CITIES = {"NewYork": 40, "Seattle": 47, "SanFrancisco": 37, "Chicago": 41}


@pytest.fixture
def vigor(tmp_path, paint):
    """Five tiles and two panoramas a city; the first is for training, the second for testing in the same-area split."""
    for city, lat in VIGOR_CITIES.items():
        tiles = [f"satellite_{lat}.{i}_-70.{i}.png" for i in range(5)]
        panoramas = [f"pano{i},{lat}.{i}1,-70.{i}1,.jpg" for i in range(2)]
        paint(*(f"{city}/satellite/{name}" for name in tiles), *(f"{city}/panorama/{name}" for name in panoramas))
        for labels in ("splits", "splits_new", "splits__corrected"):
            folder = tmp_path / labels / city
            folder.mkdir(parents=True)
            (folder / "satellite_list.txt").write_text("\n".join(tiles) + "\n")
            lines = [
                f"{panoramas[0]} {tiles[0]} 10.0 -20.0 {tiles[1]} 200 30 {tiles[2]} 1 250 {tiles[3]} -190 -7",
                f"{panoramas[1]} {tiles[1]} -3.5 4.5 {tiles[0]} 200 30 {tiles[2]} 1 250 {tiles[4]} -190 -7",
            ]
            end = "__corrected.txt" if labels == "splits__corrected" else ".txt"
            (folder / f"same_area_balanced_train{end}").write_text(lines[0] + "\n")
            (folder / f"same_area_balanced_test{end}").write_text(lines[1] + "\n")
            (folder / f"pano_label_balanced{end}").write_text("\n".join(lines) + "\n")
    return tmp_path


def gta_entry(photo, xy_m, positive, semi_positive):
    """One entry of GTA-UAV's files: tiles with their IoU; positives are listed among the semi-positives, too."""
    both = {**semi_positive, **positive}
    return {
        "drone_img_dir": "drone/images",
        "drone_img_name": photo,
        "drone_loc_x_y": xy_m,
        "sate_img_dir": "satellite",
        "pair_pos_sate_img_list": list(positive),
        "pair_pos_sate_weight_list": list(positive.values()),
        "pair_pos_semipos_sate_img_list": list(both),
        "pair_pos_semipos_sate_weight_list": list(both.values()),
        "drone_metadata": {"height": 501.8},
    }


@pytest.fixture
def gta_uav(tmp_path, paint):
    """Five tiles at zooms 4 and 5; two training and three test photos, one of which has no positive."""
    tiles = ["5_0_10_20.png", "4_0_5_10.png", "5_0_11_20.png", "5_128_0_0.png", "5_0_30_30.png"]
    photos = [f"200_0001_{i:010d}.png" for i in range(5)]
    paint(*(f"satellite/{name}" for name in tiles), *(f"drone/images/{name}" for name in photos))
    parts = {
        "train": [
            gta_entry(photos[0], [3633.5, 7140.5], {tiles[0]: 0.58}, {tiles[1]: 0.26}),
            gta_entry(photos[1], [3970.0, 7090.0], {tiles[2]: 0.66}, {tiles[0]: 0.15}),
        ],
        "test": [
            gta_entry(photos[2], [3700.0, 7100.0], {tiles[0]: 0.41, tiles[1]: 0.5}, {tiles[2]: 0.2}),
            gta_entry(photos[3], [3900.0, 7000.0], {tiles[1]: 0.45}, {}),
            gta_entry(photos[4], [100.0, 100.0], {}, {tiles[3]: 0.2}),
        ],
    }
    for part, entries in parts.items():
        for area in ("same", "cross"):
            (tmp_path / f"{area}-area-drone2sate-{part}.json").write_text(json.dumps(entries, indent=1))
    return tmp_path
