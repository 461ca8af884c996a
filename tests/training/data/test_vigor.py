import shutil

import numpy as np
import pytest
import torch

from training.data.datasets import open_dataset
from training.data.vigor import VIGORConfig
from training.errors import TrainingError

GSD_M = {"NewYork": 0.113248, "Seattle": 0.100817, "SanFrancisco": 0.118141, "Chicago": 0.111262}
LABELS = ["splits", "splits_new", "splits__corrected"]


def opened(root, size, **settings):
    return open_dataset(VIGORConfig(root, **settings), size, seed=0)


@pytest.mark.parametrize("labels", LABELS)
def test_same_area_trains_on_the_training_list_of_all_cities(vigor, size, labels):
    pairs = opened(vigor, size, labels=labels).train()
    assert [photo.parts[-3] for photo in pairs.photos] == list(GSD_M)
    assert all(photo.name.startswith("pano0") for photo in pairs.photos)
    assert [tile.name.split("_")[1][-2:] for tile in pairs.tiles] == [".0"] * 4
    assert pairs.place.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(pairs.position, [[40.0, -70.0], [47.0, -70.0], [37.0, -70.0], [41.0, -70.0]])
    np.testing.assert_allclose(pairs.tile_side_m, [640 * gsd for gsd in GSD_M.values()])


def test_offsets_are_right_and_down_in_metres(vigor, size):
    """Label "10 -20": 20 px right of the tile's centre and 10 px below it, as the authors' plots draw it."""
    batch = opened(vigor, size).train().load([0, 3], torch.Generator(), clean=True)
    np.testing.assert_allclose(batch.offset_m, [[20 * g, 10 * g] for g in (0.113248, 0.111262)], rtol=1e-5)
    np.testing.assert_allclose(batch.tile_side_m, [640 * g for g in (0.113248, 0.111262)], rtol=1e-5)


def test_offset_leads_to_the_panoramas_own_position(tmp_path, paint, size):
    """A label made from the file names by plane geometry: offset and positions must agree."""
    lat, lon, gsd, radius = 40.75, -73.98, 0.113248, 6_371_008.8
    east_m, south_m = 12.0, -7.5
    pano_lat = lat - np.degrees(south_m / radius)
    pano_lon = lon + np.degrees(east_m / (radius * np.cos(np.radians(lat))))
    tiles = [f"satellite_{lat}_{lon + i}.png" for i in range(4)]
    pano = f"x,{pano_lat:.9f},{pano_lon:.9f},.jpg"
    for city in GSD_M:
        paint(*(f"{city}/satellite/{name}" for name in tiles), f"{city}/panorama/{pano}")
        (tmp_path / "splits" / city).mkdir(parents=True)
        (tmp_path / "splits" / city / "satellite_list.txt").write_text("\n".join(tiles))
        line = f"{pano} {tiles[0]} {south_m / gsd} {-east_m / gsd} " + " ".join(f"{t} 0 0" for t in tiles[1:])
        for file in ("same_area_balanced_train", "same_area_balanced_test"):
            (tmp_path / "splits" / city / f"{file}.txt").write_text(line)
    data = opened(tmp_path, size, labels="splits")
    (where,) = data.tasks()[0].queries.position[:1]
    pairs = data.train()
    ((tile_lat, tile_lon),) = pairs.position[:1]
    right, down = pairs.offset_m[0]
    assert right == pytest.approx(np.radians(where[1] - tile_lon) * radius * np.cos(np.radians(lat)), abs=1e-2)
    assert down == pytest.approx(-np.radians(where[0] - tile_lat) * radius, abs=1e-2)


def test_cross_area_trains_in_two_cities_and_tests_in_the_others(vigor, size):
    data = opened(vigor, size, area="cross")
    pairs, (task,) = data.train(), data.tasks()
    assert {photo.parts[-3] for photo in pairs.photos} == {"NewYork", "Seattle"}
    assert len(pairs.place) == 4
    assert {name.split("/")[0] for name in (*task.queries.name, *task.gallery.name)} == {"SanFrancisco", "Chicago"}
    assert (len(task.queries), len(task.gallery)) == (4, 10)


def test_photos_bar_the_tiles_that_they_show_in_part(vigor, size):
    """In the cross-area list of a city, tiles 0 and 1 are places, and each panorama shows the other's, too."""
    assert opened(vigor, size, area="cross").train().also_shows is None  # as the published sampler
    pairs = opened(vigor, size, area="cross", semi_positives="apart").train()
    assert pairs.place.tolist() == [0, 1, 2, 3]
    assert [shown.tolist() for shown in pairs.also_shows] == [[1], [0], [3], [2]]


def test_one_positive_and_three_semi_positives(vigor, size):
    (task,) = opened(vigor, size).tasks()
    assert task.name == "ground_to_satellite"
    assert (len(task.queries), len(task.gallery)) == (4, 20)
    assert [p.tolist() for p in task.positives] == [[1], [6], [11], [16]]
    assert [sorted(p.tolist()) for p in task.semi_positives] == [[0, 2, 4], [5, 7, 9], [10, 12, 14], [15, 17, 19]]
    np.testing.assert_allclose(task.queries.position[0], [40.11, -70.11])
    np.testing.assert_allclose(task.gallery.position[16], [41.1, -70.1])
    assert task.gallery.place[task.positives[2][0]] == task.queries.place[2]


def test_images_are_the_files(vigor, size, colour):
    (task,) = opened(vigor, size).tasks()
    for images, row in ((task.queries, 1), (task.gallery, 13)):
        np.testing.assert_allclose(images.load([row]).mean((2, 3))[0] * 255, colour(images.name[row]), atol=3)


@pytest.mark.parametrize("gone", ["Chicago/panorama", "Seattle/satellite"])
def test_a_missing_folder_is_named(vigor, size, gone):
    shutil.rmtree(vigor / gone)
    with pytest.raises(TrainingError, match=f"there is no folder {gone}/") as error:
        opened(vigor, size)
    assert "satellite_list.txt" in str(error.value)


@pytest.mark.parametrize(
    "gone",
    [
        "splits/NewYork/satellite_list.txt",
        "splits/Chicago/same_area_balanced_train.txt",
        "splits/Chicago/same_area_balanced_test.txt",
        "splits__corrected/Seattle/same_area_balanced_test__corrected.txt",
    ],
)
def test_a_missing_label_file_is_named(vigor, size, gone):
    (vigor / gone).unlink()
    with pytest.raises(TrainingError, match=f"cannot read {gone}"):
        opened(vigor, size, labels=gone.split("/")[0])


def test_a_listed_tile_that_is_not_there(vigor, size):
    (vigor / "Seattle/satellite/satellite_47.4_-70.4.png").unlink()
    with pytest.raises(TrainingError, match=r"names satellite_47\.4_-70\.4\.png, which is not in Seattle/satellite"):
        opened(vigor, size)


def test_a_labelled_panorama_that_is_not_there(vigor, size):
    (vigor / "Chicago/panorama/pano1,41.11,-70.11,.jpg").unlink()
    with pytest.raises(TrainingError, match=r"names pano1,41\.11,-70\.11,\.jpg, which is not in Chicago/panorama"):
        opened(vigor, size)


@pytest.mark.parametrize("line", ["pano0 tile 1", "pano0,40.01,-70.01,.jpg unknown.png 1 2 " * 4, "x"])
def test_a_line_of_another_kind_is_named(vigor, size, line):
    (vigor / "splits/NewYork/same_area_balanced_train.txt").write_text(line)
    with pytest.raises(TrainingError, match=r"line 1 of splits/NewYork/same_area_balanced_train\.txt is not"):
        opened(vigor, size, labels="splits")


def test_names_must_hold_positions(vigor, size):
    name = "satellite_40.4_-70.4.png"
    (vigor / "NewYork/satellite" / name).rename(vigor / "NewYork/satellite/renamed.png")
    path = vigor / "splits/NewYork/satellite_list.txt"
    path.write_text(path.read_text().replace(name, "renamed.png"))
    label = vigor / "splits/NewYork/same_area_balanced_test.txt"
    label.write_text(label.read_text().replace(name, "renamed.png"))
    with pytest.raises(TrainingError, match=r"the name of renamed\.png does not hold its latitude"):
        opened(vigor, size, labels="splits").tasks()


def test_panoramas_keep_their_aspect_when_asked(vigor, size):
    """384 × 768 in the published recipe: twice as wide as high, and the tiles square."""
    data = opened(vigor, size, panorama_aspect=2)
    batch = data.train().load([0, 1], torch.Generator().manual_seed(0))
    assert batch.photo.shape == (2, 3, 16, 32)
    assert batch.tile.shape == (2, 3, 16, 16)
    (task,) = data.tasks()
    assert task.queries.load([0]).shape == (1, 3, 16, 32)
    assert task.gallery.load([0]).shape == (1, 3, 16, 16)
