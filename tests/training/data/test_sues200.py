import shutil

import numpy as np
import pytest
import torch

from training.data.datasets import open_dataset
from training.data.sues200 import TEST_IDS, SUES200Config
from training.errors import TrainingError

HEIGHTS = (150, 200, 250, 300)
SUMS = (11864, 1606186)


def opened(root, size, **settings):
    return open_dataset(SUES200Config(root, **settings), size, seed=0)


@pytest.fixture(params=["sues_raw", "sues_split"])
def either(request):
    return request.getfixturevalue(request.param)


def test_the_official_list():
    assert len(TEST_IDS) == 80
    assert all(len(name) == 4 and 1 <= int(name) <= 200 for name in TEST_IDS)
    assert {"0008", "0095", "0107", "0195"} <= TEST_IDS
    assert not {"0001", "0096", "0196", "0200"} & TEST_IDS
    training = set(range(1, 201)) - {int(name) for name in TEST_IDS}
    assert (sum(training), sum(number**2 for number in training)) == SUMS  # of the authors' list of 120 training places


def test_both_layouts_give_the_same_pairs(either, size):
    pairs = opened(either, size).train()
    assert len(pairs.place) == 2 * 2 * 4
    assert pairs.places == 2
    assert pairs.place.tolist() == [0, 0, 1, 1] * 4
    assert all(photo.parent.name in ("0001", "0002", *map(str, HEIGHTS)) for photo in pairs.photos)
    for photo, tile, place in zip(pairs.photos, pairs.tiles, pairs.place, strict=True):
        name = f"000{place + 1}"
        assert name in photo.parts
        assert tile.parts[-2:] == (name, "0.png")


def test_a_height_of_its_own(either, size, colour):
    pairs = opened(either, size, heights_m=(200,)).train()
    assert len(pairs.place) == 4
    assert all("200" in photo.parts for photo in pairs.photos)
    batch = pairs.load([3], torch.Generator(), clean=True)
    expected = [colour(path.relative_to(either)) for path in (pairs.photos[3], pairs.tiles[3])]
    np.testing.assert_allclose(torch.cat((batch.photo, batch.tile)).mean((2, 3)) * 255, expected, atol=3)


def test_each_height_is_a_pair_of_tasks_with_training_places_as_distractors(either, size):
    tasks = opened(either, size, heights_m=(150, 300)).tasks()
    assert [task.name for task in tasks] == [
        "drone_to_satellite_150m",
        "satellite_to_drone_150m",
        "drone_to_satellite_300m",
        "satellite_to_drone_300m",
    ]
    for task in tasks[::2]:
        assert (len(task.queries), len(task.gallery)) == (4, 4)
        assert [p.tolist() for p in task.positives] == [[2], [2], [3], [3]]  # 0001, 0002, 0008, 0012
        assert all(task.name[-4:-1] in name.split("/") for name in task.queries.name)
    for task in tasks[1::2]:
        assert (len(task.queries), len(task.gallery)) == (2, 8)
        assert [p.tolist() for p in task.positives] == [[4, 5], [6, 7]]


@pytest.mark.parametrize(
    "gone",
    ["satellite-view", "drone_view_512/0012/250", "satellite-view/0012"],
)
def test_a_missing_raw_folder_is_named(sues_raw, size, gone):
    shutil.rmtree(sues_raw / gone)
    with pytest.raises(TrainingError, match=rf"there is no (folder )?{gone}/") as error:
        opened(sues_raw, size)
    assert "satellite-view/0001/0.png" in str(error.value)


def test_neither_layout(sues_raw, size):
    shutil.rmtree(sues_raw / "drone_view_512")
    with pytest.raises(TrainingError, match="neither Training/ nor a folder with"):
        opened(sues_raw, size)


@pytest.mark.parametrize(
    "gone",
    [
        "Training/150/drone",
        "Training/200/satellite",
        "Testing/250/query_drone",
        "Testing/300/query_satellite",
        "Testing/300/gallery_drone",
        "Testing/150/gallery_satellite",
        "Training/150/satellite/0002",
        "Testing/150/gallery_drone/0008",
    ],
)
def test_a_missing_split_folder_is_named(sues_split, size, gone):
    shutil.rmtree(sues_split / gone)
    with pytest.raises(TrainingError, match=rf"there is no (folder )?{gone}/"):
        opened(sues_split, size)


def test_only_the_heights_asked_for_have_to_be_there(sues_split, size):
    shutil.rmtree(sues_split / "Training/250")
    assert len(opened(sues_split, size, heights_m=(150,)).train().place) == 4


def test_another_split_is_refused(sues_split, size):
    (sues_split / "Training/150/drone/0001").rename(sues_split / "Training/150/drone/0008")
    (sues_split / "Training/150/satellite/0001").rename(sues_split / "Training/150/satellite/0008")
    with pytest.raises(TrainingError, match="place 0008 is on the wrong side of the official split"):
        opened(sues_split, size)


def test_a_training_place_among_the_queries_is_refused(sues_split, size):
    (sues_split / "Testing/150/query_drone/0012").rename(sues_split / "Testing/150/query_drone/0001")
    with pytest.raises(TrainingError, match="place 0001 is on the wrong side"):
        opened(sues_split, size)


def test_heights_must_have_the_same_training_places(sues_split, size):
    shutil.rmtree(sues_split / "Training/300/drone/0002")
    with pytest.raises(TrainingError, match="300 m has other training places"):
        opened(sues_split, size)


def test_test_places_alone_are_no_data_set(sues_raw, size):
    for name in ("0001", "0002"):
        shutil.rmtree(sues_raw / "drone_view_512" / name)
    with pytest.raises(TrainingError, match="places of the official training list and of the test list"):
        opened(sues_raw, size)
