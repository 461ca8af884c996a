import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from training.batch import Batch, Features
from training.errors import TrainingError
from training.methods import make_method
from training.methods.base import ModelShape
from training.methods.dense import Dense, DenseConfig, dense_loss, surrounding
from training.methods.dphr import DPHRConfig
from training.methods.sample4geo import Sample4GeoConfig

SHAPE = ModelShape(embedding_dim=5, stage_channels=(), local_dim=3, places=6, image_size=8)
NAN, TEMPERATURE = math.nan, 0.2


def unit(*shape, seed=0):
    noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return F.normalize(noise, dim=1)


def batch_with_ground(shares, pixels_per_cell=2, tile_side_m=80.0):
    """A batch whose photos show, in each cell, the ground at ``shares [B, h, w, 2]`` of the tile's side."""
    ground = torch.as_tensor(shares, dtype=torch.float64) * tile_side_m
    ground = ground.repeat_interleave(pixels_per_cell, 1).repeat_interleave(pixels_per_cell, 2)
    n = len(ground)
    image, side = torch.zeros(n, 3, 1, 1), torch.full((n,), tile_side_m, dtype=torch.float64)
    return Batch(image, image, torch.arange(n), torch.zeros(n, 2), side, torch.ones(n), ground)


def grid_shares(side):
    """Where cell centres lie, when the photo is the tile: ``[side, side, 2]`` right, down."""
    centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5
    down, right = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack((right, down), dim=2)


def log_softmax(row, i):
    return row[i] - math.log(sum(math.exp(x) for x in row))


def test_the_loss_against_loops():
    side = 4
    photo, tile = unit(2, 3, side, side, seed=1), unit(2, 3, side, side, seed=2)
    shares = torch.rand(2, side, side, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 1.2 - 0.6
    shares[0, 0, 0] = NAN
    cells = list(itertools.product(range(side), range(side)))
    total, weights = 0.0, 0.0
    for b in range(2):
        logits = [[float(photo[b, :, p, q] @ tile[b, :, r, c]) / TEMPERATURE for r, c in cells] for p, q in cells]
        for i, (p, q) in enumerate(cells):
            right, down = shares[b, p, q].tolist()
            if not (abs(right) < 0.5 and abs(down) < 0.5):
                continue
            for j, (r, c) in enumerate(cells):  # a tent of one cell each way is bilinear interpolation
                across = 1 - abs((right + 0.5) * side - 0.5 - c)
                along = 1 - abs((down + 0.5) * side - 0.5 - r)
                weight = max(0.0, across) * max(0.0, along)
                there, back = log_softmax(logits[i], j), log_softmax([row[j] for row in logits], i)
                total -= weight * (there + back) / 2
                weights += weight
    assert weights > 10
    found = dense_loss(photo, tile, batch_with_ground(shares), TEMPERATURE)
    assert float(found) == pytest.approx(total / weights, rel=1e-9)


def test_the_loss_is_least_where_every_part_is_in_its_place():
    side = 4
    tile = torch.eye(side * side, dtype=torch.float64).view(1, side * side, side, side)
    straight = batch_with_ground(grid_shares(side)[None])
    turned = batch_with_ground(torch.rot90(grid_shares(side), 1, (0, 1))[None])
    quarter = torch.rot90(tile, 1, (2, 3))  # the photo, turned as its ground is
    right_way = dense_loss(tile, tile, straight, TEMPERATURE)
    assert dense_loss(quarter, tile, turned, TEMPERATURE) == pytest.approx(float(right_way))
    assert dense_loss(tile, tile, turned, TEMPERATURE) > right_way + 1
    assert dense_loss(quarter, tile, straight, TEMPERATURE) > right_way + 1


def test_without_known_ground_the_loss_is_zero_and_without_ground_an_error():
    maps = unit(1, 3, 4, 4)
    nowhere = batch_with_ground(torch.full((1, 4, 4, 2), NAN))
    assert float(dense_loss(maps, maps, nowhere, TEMPERATURE)) == 0
    unknown = Batch(*(getattr(nowhere, name) for name in ("photo", "tile", "place", "offset_m")), *[torch.ones(1)] * 2)
    with pytest.raises(TrainingError, match="leave dense out"):
        dense_loss(maps, maps, unknown, TEMPERATURE)


def test_gradients_by_finite_differences():
    photo, tile = (unit(1, 2, 4, 4, seed=s).requires_grad_() for s in (4, 5))
    batch = batch_with_ground(grid_shares(4)[None] * 0.9)
    assert torch.autograd.gradcheck(lambda a, b: dense_loss(a, b, batch, TEMPERATURE), (photo, tile))


@given(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7), st.integers(1, 5), st.integers(1, 5))
def test_the_four_cells_around_a_point_average_to_it(right, down, height, width):
    share = torch.tensor([[[right, down]]], dtype=torch.float64)
    corners = [(int(cell), float(weight)) for cell, weight in surrounding(share, height, width)]
    total = sum(weight for _, weight in corners)
    assert all(0 <= cell < height * width for cell, _ in corners)
    column, row = (right + 0.5) * width - 0.5, (down + 0.5) * height - 0.5
    if abs(right) >= 0.5 or abs(down) >= 0.5:
        assert total == 0
    elif 0 <= column <= width - 1 and 0 <= row <= height - 1:
        assert total == pytest.approx(1)
        assert sum(weight * (cell % width) for cell, weight in corners) == pytest.approx(column)
        assert sum(weight * (cell // width) for cell, weight in corners) == pytest.approx(row)
    else:  # between the outermost centres and the border
        assert 0 < total < 1


@torch.no_grad()
def test_it_rides_on_any_method_and_leaves_its_parts_alone():
    names = ("photo", "tile")
    views = {name: Features(unit(4, 5, seed=i), local=unit(4, 3, 4, 4, seed=i)) for i, name in enumerate(names)}
    batch = batch_with_ground(grid_shares(4).expand(4, 4, 4, 2))
    alone = make_method(Sample4GeoConfig(), DPHRConfig(), None, SHAPE).double()(views, batch)
    method = make_method(Sample4GeoConfig(), DPHRConfig(), DenseConfig(weight=0.5), SHAPE).double()
    assert isinstance(method, Dense)
    both = method(views, batch)
    assert both.keys() - alone.keys() == {"dense"}
    assert all(both[name] == value for name, value in alone.items() if name != "loss")
    assert float(both["loss"] - alone["loss"]) == pytest.approx(0.5 * float(both["dense"]))


def test_a_model_without_dense_descriptors_names_the_fix():
    shape = ModelShape(embedding_dim=5, stage_channels=(), local_dim=None, places=6, image_size=8)
    with pytest.raises(TrainingError, match=r"set model\.local_dim"):
        make_method(Sample4GeoConfig(), None, DenseConfig(), shape)
