"""What is left of an encoder answers maps of the frozen stages as the whole one answers the pictures."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from frozen import cut, load_maps
from hard_places import Pairs, Questions

from training.config import ModelConfig
from training.models.encoder import Encoder, as_input

PLACES, VIEWS, SIDE, STAGES = 3, 2, 64, 2


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return Encoder(ModelConfig(weights="none", embedding_dim=8, image_size=SIDE, frozen_stages=STAGES)).eval()


def pictures(*shape):
    return torch.randint(256, (*shape, 3, SIDE, SIDE), dtype=torch.uint8)


def test_the_rest_of_an_encoder_embeds_maps_as_the_whole_one_embeds_pictures(encoder, tmp_path):
    tile = pictures(PLACES)
    pairs = Pairs(pictures(PLACES, VIEWS), pictures(PLACES, VIEWS), torch.zeros(PLACES, VIEWS, 2), 50.0)
    questions = Questions(pictures(PLACES, VIEWS), tile, torch.arange(PLACES), torch.zeros(PLACES, dtype=torch.bool))
    with torch.inference_mode():
        expected = encoder(tile.permute(0, 2, 3, 1))
        batch = pairs.load(range(PLACES), torch.Generator().manual_seed(1))
        of_photos = encoder(as_input(batch.photo))
        for _ in range(2):  # worked out, then read
            maps, asked = load_maps(encoder, pairs, questions, tmp_path / "maps.pt")
            encoder_of_maps = Encoder(encoder.config).eval()
            encoder_of_maps.load_state_dict(encoder.state_dict())
            cut(encoder_of_maps)
            torch.testing.assert_close(encoder_of_maps(asked.tile.permute(0, 2, 3, 1)), expected)
            batch = maps.load(range(PLACES), torch.Generator().manual_seed(1))
            torch.testing.assert_close(encoder_of_maps(as_input(batch.photo)), of_photos)


def test_products_have_the_gradients_of_convolutions(encoder):
    maps = torch.rand(2, 24, 16, 16, dtype=torch.float64)  # what two stages of this backbone leave
    encoder = encoder.double()
    backbone = encoder.backbone
    whole = torch.nn.Sequential(*backbone.blocks[STAGES:], backbone.conv_head, backbone.bn2)
    weights = [w for w in whole.parameters() if w.requires_grad]
    expected = whole(maps)
    direction = torch.rand_like(expected)
    of_convolutions = torch.autograd.grad((expected * direction).sum(), weights)
    cut(encoder)
    torch.testing.assert_close(encoder.backbone(maps), expected)
    of_products = torch.autograd.grad((encoder.backbone(maps) * direction).sum(), weights)
    torch.testing.assert_close(of_products, of_convolutions)
