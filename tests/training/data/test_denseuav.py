import shutil

import numpy as np
import pytest
import torch

from training.data.datasets import open_dataset
from training.data.denseuav import DenseUAVConfig
from training.errors import TrainingError


def opened(root, size):
    return open_dataset(DenseUAVConfig(root), size, seed=0)


def test_every_photo_goes_with_every_tile_of_its_point(denseuav, size, colour):
    pairs = opened(denseuav, size).train()
    assert len(pairs.place) == 2 * 2 * 4
    assert pairs.place.tolist() == [0] * 8 + [1] * 8
    named = {(p.name, t.name) for p, t in zip(pairs.photos[:8], pairs.tiles[:8], strict=True)}
    assert named == {(f"H{a}.JPG", f"H{b}{age}.tif") for a in (80, 90) for b in (80, 90) for age in ("", "_old")}
    batch = pairs.load([9], torch.Generator(), clean=True)
    expected = [colour(path.relative_to(denseuav)) for path in (pairs.photos[9], pairs.tiles[9])]
    np.testing.assert_allclose(torch.cat((batch.photo, batch.tile)).mean((2, 3)) * 255, expected, atol=3)


def test_positions_go_by_the_letter_not_by_the_order(denseuav, size):
    data = opened(denseuav, size)
    np.testing.assert_allclose(data.train().position, [[30.0, 120.0], [30.001, 120.001]])
    for task in data.tasks():
        expected = {"000007": [30.002, 120.002], "000008": [30.003, 120.003]}
        for images in (task.queries, task.gallery):
            np.testing.assert_allclose(images.position, [expected[name.split("/")[-2]] for name in images.name])


def test_tasks_in_both_directions(denseuav, size):
    to_satellite, to_drone = opened(denseuav, size).tasks()
    assert (to_satellite.name, to_drone.name) == ("drone_to_satellite", "satellite_to_drone")
    assert [p.tolist() for p in to_satellite.positives] == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2
    assert [p.tolist() for p in to_drone.positives] == [[0, 1]] * 4 + [[2, 3]] * 4


@pytest.mark.parametrize(
    "gone",
    [
        "train/drone",
        "train/satellite",
        "train/satellite/000002",
        "test/gallery_satellite/000008",
    ],
)
def test_a_missing_folder_is_named(denseuav, size, gone):
    shutil.rmtree(denseuav / gone)
    with pytest.raises(TrainingError, match=rf"there is no (folder )?{gone}/") as error:
        opened(denseuav, size)
    assert "Dense_GPS_ALL.txt" in str(error.value)


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        (["query_satellite", "gallery_drone"], ["drone_to_satellite"]),
        (["query_satellite"], ["drone_to_satellite"]),
        (["gallery_satellite"], ["satellite_to_drone"]),
    ],
)
def test_a_copy_may_lack_the_folders_of_a_direction(denseuav, size, gone, left):
    for name in gone:
        shutil.rmtree(denseuav / "test" / name)
    data = opened(denseuav, size)
    assert [task.name for task in data.tasks()] == left
    assert len(data.train().place) == 16


def test_a_copy_without_either_direction_is_told(denseuav, size):
    for name in ("query_drone", "gallery_drone"):
        shutil.rmtree(denseuav / "test" / name)
    with pytest.raises(TrainingError, match="neither query_drone/ with gallery_satellite/, nor the way back"):
        opened(denseuav, size).tasks()


def test_the_gps_file_is_needed(denseuav, size):
    (denseuav / "Dense_GPS_ALL.txt").unlink()
    with pytest.raises(TrainingError, match=r"cannot read Dense_GPS_ALL\.txt: No such file"):
        opened(denseuav, size)


def test_a_point_without_a_line(denseuav, size):
    path = denseuav / "Dense_GPS_ALL.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "000007" not in line))
    with pytest.raises(TrainingError, match="no line for point 000007"):
        opened(denseuav, size)


@pytest.mark.parametrize(
    "line", ["train/drone/000001/H80.JPG 30.0 120.0 80", "train/drone/000001/H80.JPG N30 Ewest 80", "H80.JPG N1 E2 3"]
)
def test_a_line_of_another_kind_is_shown(denseuav, size, line):
    path = denseuav / "Dense_GPS_ALL.txt"
    path.write_text(path.read_text().rstrip() + "\n" + line)
    with pytest.raises(TrainingError, match="line 9 of Dense_GPS_ALL") as error:
        opened(denseuav, size)
    assert line in str(error.value)


def test_a_binary_gps_file(denseuav, size):
    (denseuav / "Dense_GPS_ALL.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(TrainingError, match="is no text file"):
        opened(denseuav, size)
