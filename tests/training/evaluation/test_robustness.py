import math

import numpy as np
import pytest
import torch

from training.evaluation.embed import embed
from training.evaluation.robustness import CROP_SHARES, ROTATIONS_DEG, robustness, turn_and_crop


def picture(size=64):
    """A smooth function of place, ``[1, 3, S, S]``: what it must be anywhere is known."""
    return field(*centres(size))[None]


def centres(size):
    """Pixel centres, right and down, from -1 to 1."""
    axis = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    return axis[None, :].expand(size, size), axis[:, None].expand(size, size)


def field(x, y):
    return torch.stack([0.5 + 0.3 * torch.sin(2 * x + a) * torch.cos(1.5 * y - a) for a in (0.0, 1.0, 2.0)])


def test_nothing_done_gives_the_picture_back():
    images = picture()
    assert torch.equal(turn_and_crop(images, 0, 1.0), images)
    assert torch.equal(turn_and_crop(images, 360, 1.0), images)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_clockwise(quarters):
    images = picture()
    expected = torch.rot90(images, -quarters, (2, 3))
    torch.testing.assert_close(turn_and_crop(images, 90 * quarters, 1.0), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rotation_deg", [0, 30, 135, 300])
@pytest.mark.parametrize("share", [0.5, 0.3, 0.2])
def test_small_crops_show_the_photo_alone(rotation_deg, share):
    x, y = centres(64)
    angle, side = math.radians(rotation_deg), math.sqrt(share)
    # undo the clockwise turn (y points down) to find what each pixel of the result shows
    u = side * (math.cos(angle) * x + math.sin(angle) * y)
    v = side * (-math.sin(angle) * x + math.cos(angle) * y)
    found = turn_and_crop(picture(), rotation_deg, share)[0]
    torch.testing.assert_close(found, field(u, v), atol=2e-3, rtol=0)


def test_corners_beyond_the_photo_mirror_it():
    found = turn_and_crop(torch.full((1, 3, 32, 32), 0.7), 45, 1.0)
    torch.testing.assert_close(found, torch.full((1, 3, 32, 32), 0.7))


def test_the_grid_agrees_with_turning_by_hand(make_task, mean_colours, memory_images):
    task = make_task(places=8, noise=0.35)
    gallery = embed(mean_colours, task.gallery, quiet=True)
    grid = robustness(mean_colours, task, gallery, rotations_deg=(0, 90), crop_shares=(1.0, 0.5), batch=5, quiet=True)
    for row, share in enumerate((1.0, 0.5)):
        for column, rotation in enumerate((0, 90)):
            turned = turn_and_crop(task.queries.images, rotation, share)
            scores = mean_colours(turned) @ gallery.T
            right = (scores.argmax(1) == task.queries.place).mean()
            assert grid["recall@1"][row][column] == pytest.approx(right)
    assert grid["mean"] == pytest.approx(np.mean(grid["recall@1"]))
    assert grid["recall@1"][0][0] > grid["recall@1"][0][1]  # mean colours of cells know no turns
    assert grid["queries"] == 16


def test_queries_are_drawn_evenly_and_loaded_once(make_task, mean_colours):
    task = make_task(places=10)
    gallery = embed(mean_colours, task.gallery, quiet=True)
    grid = robustness(mean_colours, task, gallery, rotations_deg=(0, 180), crop_shares=(1,), queries=4, quiet=True)
    assert sorted(task.queries.loaded) == [0, 6, 13, 19]
    assert grid["queries"] == 4


def test_the_whole_grid_has_sixty_cells(make_task, mean_colours):
    task = make_task(places=2)
    grid = robustness(mean_colours, task, embed(mean_colours, task.gallery, quiet=True), quiet=True)
    assert np.shape(grid["recall@1"]) == (len(CROP_SHARES), len(ROTATIONS_DEG)) == (5, 12)
    assert grid["rotations_deg"] == list(range(0, 360, 30))
    assert grid["crop_shares"] == [1.0, 0.7, 0.5, 0.3, 0.2]
