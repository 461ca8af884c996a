from types import SimpleNamespace

import numpy as np
import pytest
import torch

from training.data.base import on_the_equator
from training.data.datasets import open_dataset
from training.data.simulator.simulated import SimulatedConfig
from training.errors import TrainingError

SIDE_M = 30.0


def opened(root, *, seed=3, **settings):
    settings = {
        "textures": ("*/*.png",),
        "held_out_share": 0.3,
        "tile_side_m": SIDE_M,
        "window_px": (100, 130),
    } | settings
    return open_dataset(SimulatedConfig(root, **settings), SimpleNamespace(image_size=48, resize="squash"), seed=seed)


@pytest.fixture(scope="module")
def data(picture_folder):
    return opened(picture_folder)


@pytest.fixture(scope="module")
def tasks(data):
    return data.tasks()


def test_training_and_test_use_different_textures(data, tasks):
    pairs = data.train()
    assert pairs.places == len(data.textures)
    asked = {name.split(":")[0] for name in tasks[0].queries.name}
    assert asked == {texture.name for texture in data.held_out}
    assert not asked & {texture.name for texture in data.textures}
    assert len(asked) + pairs.places == 24


def test_four_photos_against_nine_tiles_of_each_texture(data, tasks):
    to_satellite, to_drone = tasks
    count = len(data.held_out)
    assert (to_satellite.name, to_drone.name) == ("drone_to_satellite", "satellite_to_drone")
    assert len(to_satellite.queries) <= 4 * count
    assert len(to_satellite.queries) > 3.5 * count
    assert len(to_satellite.gallery) == 9 * count
    assert to_satellite.gallery.place.tolist() == np.repeat(np.arange(count), 9).tolist()
    assert to_drone.gallery is to_satellite.queries


def metres(positions):
    """Lat, lon near the equator → east, north."""
    return np.radians(positions)[:, ::-1] * 6_371_008.8


def test_right_tiles_lie_within_half_a_side(tasks):
    task = tasks[0]
    asked, held = metres(task.queries.position), metres(task.gallery.position)
    for i, (right, shown) in enumerate(zip(task.positives, task.semi_positives, strict=True)):
        gap = held - asked[i]
        near = set(np.flatnonzero(np.hypot(*gap.T) <= SIDE_M / 2 + 1e-6))
        inside = set(np.flatnonzero(np.abs(gap).max(1) <= SIDE_M / 2 + 1e-6))
        assert set(right) == near
        assert set(shown) == inside - near
        assert len(right)
        assert (task.gallery.place[right] == task.queries.place[i]).all()


def test_the_way_back_asks_for_tiles_that_have_a_photo(tasks):
    to_satellite, to_drone = tasks
    names = {name: i for i, name in enumerate(to_satellite.gallery.name)}
    assert len(to_drone.queries) == len({int(row) for own in to_satellite.positives for row in own})
    for name, photos in zip(to_drone.queries.name, to_drone.positives, strict=True):
        assert len(photos)
        assert all(names[name] in to_satellite.positives[photo] for photo in photos)
    subset = [names[name] for name in to_drone.queries.name[:3]]
    assert torch.equal(to_drone.queries.load([0, 1, 2]), to_satellite.gallery.load(subset))


def test_images_do_not_depend_on_their_company(tasks):
    for images in (tasks[0].queries, tasks[0].gallery):
        together = images.load([5, 0, 1, 4])
        assert together.shape == (4, 3, 48, 48)
        assert 0 <= together.min() <= together.max() <= 1
        for image, row in zip(together, [5, 0, 1, 4], strict=True):
            torch.testing.assert_close(images.load([row])[0], image)


def test_the_seed_decides(picture_folder, tasks):
    again, other = (opened(picture_folder, seed=seed).tasks()[0] for seed in (3, 4))
    assert torch.equal(again.queries.load([1]), tasks[0].queries.load([1]))
    np.testing.assert_array_equal(again.queries.position, tasks[0].queries.position)
    assert not torch.equal(other.queries.load([1]), tasks[0].queries.load([1]))


def test_oblique_photos_on_request(picture_folder):
    task = opened(picture_folder, test_pitch_deg=(45.0, 50.0)).tasks()[0]
    pitch = torch.cat([camera.pitch_deg for camera in task.queries.cameras])
    assert 45 <= pitch.min() < pitch.max() <= 50


def test_the_centre_of_a_photo_is_its_position(tasks):
    """The truth was taken from a one-pixel view; the whole photo's own truth agrees."""
    photos = tasks[0].queries
    from training.data.simulator.held_out import _scene

    for row in (0, 7):
        scene, _ = _scene(photos.simulator, int(photos.place[row]), photos.seed)
        centre = photos.simulator.shoot(scene, photos.cameras[row]).centre[0, :2].double().numpy()
        local = photos.point_m[row] - (photos.place[row] * 20 * SIDE_M, 0)
        np.testing.assert_allclose(centre, local, atol=0.02)


def test_nothing_held_out_names_the_setting(picture_folder):
    data = opened(picture_folder, held_out_share=0.0)
    assert data.train().places == 24
    with pytest.raises(TrainingError, match=r"raise data\.held_out_share"):
        data.tasks()


def test_the_equator_is_flat():
    east, north = np.array([0.0, 1000.0]), np.array([0.0, -500.0])
    lat, lon = np.radians(on_the_equator(east, north)[1])
    assert lat * 6_371_008.8 == pytest.approx(-500)
    assert lon * 6_371_008.8 == pytest.approx(1000)
