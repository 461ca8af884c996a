import json
import math
import shutil

import numpy as np
import pytest
import torch

from training.data.datasets import open_dataset
from training.data.gta_uav import GTAUAVConfig
from training.errors import TrainingError

TILES = ["4_0_5_10.png", "5_0_10_20.png", "5_0_11_20.png", "5_0_30_30.png", "5_128_0_0.png"]  # in order of names


def opened(root, size, **settings):
    return open_dataset(GTAUAVConfig(root, **settings), size, seed=0)


def named(pairs):
    return [(p.stem[-1], t.name) for p, t in zip(pairs.photos, pairs.tiles, strict=True)]


def test_photos_pair_with_every_tile_they_overlap_enough(gta_uav, size):
    pairs = opened(gta_uav, size).train()
    assert named(pairs) == [("0", TILES[0]), ("0", TILES[1]), ("1", TILES[1]), ("1", TILES[2])]
    assert pairs.place.tolist() == [0, 1, 1, 2]
    assert pairs.places == 3
    assert pairs.overlap.tolist() == [0.26, 0.58, 0.15, 0.66]


def test_positives_alone_on_request(gta_uav, size):
    pairs = opened(gta_uav, size, train_tiles="positive").train()
    assert named(pairs) == [("0", TILES[1]), ("1", TILES[2])]
    assert pairs.overlap.tolist() == [0.58, 0.66]
    assert [shown.tolist() for shown in pairs.also_shows] == [[], [0]]  # photo 1 shows tile 1 a little


def test_photos_bar_the_other_tiles_that_they_show(gta_uav, size):
    pairs = opened(gta_uav, size).train()
    assert [shown.tolist() for shown in pairs.also_shows] == [[1], [0], [2], [1]]


def test_offsets_and_sides_in_metres(gta_uav, size, colour):
    """Zoom 5 cuts 24,576 px of 0.45 m into 32 tiles: 345.6 m; the centre of tile (10, 20) is at (3628.8, 7084.8)."""
    pairs = opened(gta_uav, size).train()
    batch = pairs.load([1, 0], torch.Generator(), clean=True)
    np.testing.assert_allclose(batch.tile_side_m, [345.6, 691.2])
    np.testing.assert_allclose(batch.offset_m[0], [3633.5 - 3628.8, 7140.5 - 7084.8], atol=1e-3)
    np.testing.assert_allclose(batch.offset_m[1], [3633.5 - 5.5 * 691.2, 7140.5 - 10.5 * 691.2], atol=1e-3)
    np.testing.assert_allclose(batch.overlap, [0.58, 0.26])
    np.testing.assert_allclose(batch.tile[0].mean((1, 2)) * 255, colour(f"satellite/{TILES[1]}"), atol=1)


def test_the_published_example_agrees(gta_uav, size):
    """The README of the data set gives 5_10_20.png the place (3628.8, 7084.8), and 4_5_10.png (3801.6, 7257.6)."""
    (gta_uav / "satellite/4_5_10.png").write_bytes((gta_uav / "satellite" / TILES[0]).read_bytes())
    (gta_uav / "satellite/5_10_20.png").write_bytes((gta_uav / "satellite" / TILES[0]).read_bytes())
    centre = opened(gta_uav, size).tile_xy_m
    assert centre["5_10_20.png"] == centre["5_0_10_20.png"] == pytest.approx((3628.8, 7084.8))
    assert centre["4_5_10.png"] == pytest.approx((3801.6, 7257.6))
    assert centre["5_128_0_0.png"] == pytest.approx((345.6, 345.6))  # shifted by half a tile


def test_distances_on_the_sphere_are_those_of_the_plane(gta_uav, size):
    to_satellite, _ = opened(gta_uav, size).tasks()
    (lat, lon), (tile_lat, tile_lon) = (
        np.radians(to_satellite.queries.position[0]),
        np.radians(to_satellite.gallery.position[1]),
    )
    h = math.sin((lat - tile_lat) / 2) ** 2 + math.cos(lat) * math.cos(tile_lat) * math.sin((lon - tile_lon) / 2) ** 2
    distance_m = 2 * 6_371_008.8 * math.asin(math.sqrt(h))
    assert distance_m == pytest.approx(math.hypot(3700 - 3628.8, 7100 - 7084.8), rel=1e-5)
    assert tile_lat > lat  # the map's rows count down, to the south
    assert tile_lon < lon


def test_tasks_know_positives_and_semi_positives(gta_uav, size):
    to_satellite, to_drone = opened(gta_uav, size).tasks()
    assert [name[-5] for name in to_satellite.queries.name] == ["2", "3"]  # photo 4 has no positive
    assert [name.split("/")[1] for name in to_satellite.gallery.name] == TILES
    assert [p.tolist() for p in to_satellite.positives] == [[0, 1], [0]]
    assert [p.tolist() for p in to_satellite.semi_positives] == [[2], []]
    assert to_satellite.queries.place.tolist() == [0, 0]  # the tile with the greatest IoU
    assert [name.split("/")[1] for name in to_drone.queries.name] == TILES[:2]
    assert [p.tolist() for p in to_drone.positives] == [[0, 1], [0]]
    assert [p.tolist() for p in to_drone.semi_positives] == [[], []]
    assert to_drone.gallery is to_satellite.queries


@pytest.mark.parametrize("gone", ["drone/images", "satellite"])
def test_a_missing_folder_is_named(gta_uav, size, gone):
    shutil.rmtree(gta_uav / gone)
    with pytest.raises(TrainingError, match=f"there is no folder {gone}/") as error:
        opened(gta_uav, size)
    assert "cross-area-drone2sate-train.json" in str(error.value)


@pytest.mark.parametrize("area", ["same", "cross"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_missing_list_is_named(gta_uav, size, area, part):
    (gta_uav / f"{area}-area-drone2sate-{part}.json").unlink()
    with pytest.raises(TrainingError, match=rf"cannot read {area}-area-drone2sate-{part}\.json"):
        opened(gta_uav, size, area=area)


@pytest.mark.parametrize("gone", ["satellite/5_0_10_20.png", "drone/images/200_0001_0000000001.png"])
def test_a_listed_image_that_is_not_there(gta_uav, size, gone):
    (gta_uav / gone).unlink()
    with pytest.raises(TrainingError, match=rf"train\.json names {gone.split('/')[-1]}, which is not in"):
        opened(gta_uav, size)


def edit(root, part, change):
    path = root / f"cross-area-drone2sate-{part}.json"
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: entries[0].pop("drone_loc_x_y"),
        lambda entries: entries[0].update(drone_loc_x_y=[1.0]),
        lambda entries: entries[0].update(drone_loc_x_y=["a", "b"]),
        lambda entries: entries[0]["pair_pos_sate_weight_list"].append(0.5),
        lambda entries: entries.append(3),
    ],
)
def test_an_entry_of_another_kind(gta_uav, size, change):
    edit(gta_uav, "test", change)
    with pytest.raises(TrainingError, match=r"cross-area-drone2sate-test\.json is not the data set's list of pairs"):
        opened(gta_uav, size)


def test_no_json(gta_uav, size):
    (gta_uav / "cross-area-drone2sate-train.json").write_text("{")
    with pytest.raises(TrainingError, match=r"train\.json is not the data set's list of pairs"):
        opened(gta_uav, size)


def test_photos_without_positives_are_no_test(gta_uav, size):
    edit(gta_uav, "test", lambda entries: entries.__delitem__(slice(0, 2)))
    with pytest.raises(TrainingError, match=r"test\.json has no photo with a positive tile"):
        opened(gta_uav, size)


def test_a_tile_of_another_name(gta_uav, size, paint):
    paint("satellite/overview.png")
    with pytest.raises(TrainingError, match=r"satellite/overview\.png is not named ZOOM_OFFSET_X_Y"):
        opened(gta_uav, size)
