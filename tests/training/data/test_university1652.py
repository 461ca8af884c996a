import shutil

import numpy as np
import pytest
import torch

from training.data.datasets import open_dataset
from training.data.university1652 import University1652Config
from training.errors import TrainingError


def opened(root, size):
    return open_dataset(University1652Config(root), size, seed=0)


def test_every_drone_image_makes_a_pair_with_its_buildings_satellite_image(university, size):
    pairs = opened(university, size).train()
    named = [(p.relative_to(university).as_posix(), t.name) for p, t in zip(pairs.photos, pairs.tiles, strict=True)]
    assert named == [
        ("train/drone/0001/image-01.jpeg", "0001.jpg"),
        ("train/drone/0001/image-02.jpeg", "0001.jpg"),
        ("train/drone/0001/image-03.jpeg", "0001.jpg"),
        ("train/drone/0005/image-01.jpeg", "0005.jpg"),
        ("train/drone/0005/image-02.jpeg", "0005.jpg"),
    ]
    assert pairs.place.tolist() == [0, 0, 0, 1, 1]
    assert pairs.places == 2
    assert pairs.position is None


def test_a_batch_shows_the_files(university, size, colour):
    batch = opened(university, size).train().load([4, 0], torch.Generator(), clean=True)
    assert batch.photo.shape == batch.tile.shape == (2, 3, 16, 16)
    assert batch.place.tolist() == [1, 0]
    assert batch.overlap.tolist() == [1, 1]
    assert batch.offset_m.isnan().all()
    assert batch.tile_side_m.isnan().all()
    for images, paths in (
        (batch.photo, ("train/drone/0005/image-02.jpeg", "train/drone/0001/image-01.jpeg")),
        (batch.tile, ("train/satellite/0005/0005.jpg", "train/satellite/0001/0001.jpg")),
    ):
        np.testing.assert_allclose(images.mean((2, 3)) * 255, [colour(p) for p in paths], atol=3)


def test_the_galleries_hold_the_distractor_and_the_queries_do_not(university, size):
    to_satellite, to_drone = opened(university, size).tasks()
    assert (to_satellite.name, to_drone.name) == ("drone_to_satellite", "satellite_to_drone")
    assert (len(to_satellite.queries), len(to_satellite.gallery)) == (4, 3)
    assert (len(to_drone.queries), len(to_drone.gallery)) == (2, 6)
    assert to_satellite.queries.name[2] == "test/query_drone/0003/image-01.jpeg"
    assert [p.tolist() for p in to_satellite.positives] == [[0], [0], [1], [1]]
    assert [p.tolist() for p in to_drone.positives] == [[0, 1], [2, 3]]
    assert to_drone.gallery.name[4] == "test/gallery_drone/0009/image-01.jpeg"
    assert to_satellite.semi_positives is None


def test_task_images_are_the_files(university, size, colour):
    task = opened(university, size).tasks()[0]
    images = task.gallery.load([2, 0])
    np.testing.assert_allclose(
        images.mean((2, 3)) * 255,
        [colour(f"test/gallery_satellite/{n}/{n}.jpg") for n in ("0009", "0002")],
        atol=3,
    )


@pytest.mark.parametrize(
    "gone",
    [
        "train/drone",
        "train/satellite",
        "test/query_drone",
        "test/gallery_drone",
        "test/query_satellite",
        "test/gallery_satellite",
    ],
)
def test_a_missing_folder_is_named_and_the_tree_shown(university, size, gone):
    shutil.rmtree(university / gone)
    with pytest.raises(TrainingError, match=rf"there is no folder {gone}/") as error:
        opened(university, size)
    assert "data.root" in str(error.value)
    assert "train/drone/0839/image-01.jpeg" in str(error.value)


def test_a_root_that_is_not_there(tmp_path, size):
    with pytest.raises(TrainingError, match=r"nowhere is not a University-1652 folder: there is no folder train/drone"):
        opened(tmp_path / "nowhere", size)


def test_a_building_without_its_counterpart(university, size):
    shutil.rmtree(university / "train/satellite/0005")
    with pytest.raises(TrainingError, match=r"there is no train/satellite/0005/"):
        opened(university, size)


def test_a_query_that_the_gallery_lacks(university, size):
    shutil.rmtree(university / "test/gallery_drone/0003")
    with pytest.raises(TrainingError, match=r"there is no test/gallery_drone/0003/"):
        opened(university, size)


def test_a_building_without_images(university, size):
    for path in (university / "train/drone/0001").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(TrainingError, match=r"train/drone/0001/ has no images"):
        opened(university, size)


def test_a_folder_without_buildings(university, size):
    shutil.rmtree(university / "train/drone")
    (university / "train/drone").mkdir()
    with pytest.raises(TrainingError, match=r"train/drone/ has no folders"):
        opened(university, size)


def test_stray_files_do_no_harm(university, size):
    (university / "train/drone/.DS_Store").write_text("")
    (university / "train/drone/0001/Thumbs.db").write_text("")
    (university / "train/drone/0001/._image-01.jpeg").write_text("")
    assert len(opened(university, size).train().place) == 5
