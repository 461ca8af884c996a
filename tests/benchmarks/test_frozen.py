"""What is left of an encoder answers maps of the frozen stages as the whole one answers the pictures."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from frozen import Matrices, hasten, load_maps
from hard_places import Pairs, Questions

from training.config import ModelConfig
from training.data.loader import load_batches
from training.models.encoder import Encoder, as_input

PLACES, VIEWS, SIDE, STAGES = 3, 2, 64, 2


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(ModelConfig(weights="none", embedding_dim=8, image_size=SIDE, frozen_stages=STAGES)).eval()


def pictures(*shape):
    return torch.randint(256, (*shape, 3, SIDE, SIDE), dtype=torch.uint8)


def test_the_rest_of_an_encoder_embeds_maps_as_the_whole_one_embeds_pictures(encoder, tmp_path):
    """Also when they come as training gets them: pixels travel as bytes, so maps have to be bytes."""
    tile = pictures(PLACES)
    pairs = Pairs(pictures(PLACES, VIEWS), pictures(PLACES, VIEWS), torch.zeros(PLACES, VIEWS, 2), 50.0)
    questions = Questions(pictures(PLACES, VIEWS), tile, torch.arange(PLACES), torch.zeros(PLACES, dtype=torch.bool))
    with torch.inference_mode():
        expected, of_photos = encoder(tile.permute(0, 2, 3, 1)), encoder(as_input(loaded(pairs).photo))
        for _ in range(2):  # worked out, then read
            maps = load_maps(encoder, pairs, questions, tmp_path / "maps.pt")
            rest = Encoder(encoder.config).eval()
            rest.load_state_dict(encoder.state_dict())
            maps.cut(rest)
            assert torch.cosine_similarity(rest(maps.questions.tile.permute(0, 2, 3, 1)), expected).min() > 0.999
            assert torch.cosine_similarity(rest(as_input(loaded(maps.pairs).photo)), of_photos).min() > 0.999


def loaded(pairs):
    (batch,) = load_batches(pairs, [(0, range(PLACES))], seed=1)
    return batch


def test_products_have_the_values_and_gradients_of_convolutions(encoder):
    maps = torch.rand(2, 24, 16, 16, dtype=torch.float64)  # what two stages of this backbone leave
    backbone = encoder.double().backbone
    whole = torch.nn.Sequential(*backbone.blocks[STAGES:], backbone.conv_head, backbone.bn2)
    weights = [w for w in whole.parameters() if w.requires_grad]
    expected, found = whole(maps), Matrices(backbone, STAGES)(maps)
    torch.testing.assert_close(found, expected)
    direction = torch.rand_like(expected)
    of_convolutions, of_products = (torch.autograd.grad((y * direction).sum(), weights) for y in (expected, found))
    torch.testing.assert_close(of_products, of_convolutions)


@pytest.mark.parametrize("local_dim", [None, 8])
def test_a_hastened_encoder_says_what_it_did(local_dim):
    config = ModelConfig(
        weights="none", embedding_dim=8, image_size=SIDE, frozen_stages=STAGES, local_dim=local_dim, local_stride=16
    )
    encoder = Encoder(config).double().train()
    images = as_input(torch.rand(20, 3, SIDE, SIDE, dtype=torch.float64))  # more than the frozen stages see at once
    weights = [w for w in encoder.parameters() if w.requires_grad]
    directions = [torch.rand_like(each) for each in encoder.features(images, stages=True).tensors()]

    def told():
        tensors = encoder.features(images, stages=True).tensors()
        loss = sum((each * direction).sum() for each, direction in zip(tensors, directions, strict=True))
        return [*tensors, *torch.autograd.grad(loss, weights)]

    before = told()
    hasten(encoder)
    torch.testing.assert_close(told(), before)
