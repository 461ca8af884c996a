import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from training.models.heads import VLAD, AttentionGeM, DenseHead, GeM, HeatmapDecoder, MapAttention


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shaken(module):
    """The module with random weights, also where it starts at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("p", [1.0, 3.0, 7.5])
@torch.no_grad()
def test_gem_is_the_generalised_mean(p):
    maps = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = (maps.double().numpy() ** p).mean((2, 3)) ** (1 / p)
    np.testing.assert_allclose(GeM(p)(maps), expected, rtol=1e-5)
    if p == 1.0:
        torch.testing.assert_close(GeM(p)(maps), maps.mean((2, 3)))


@torch.no_grad()
def test_vlad_sums_residuals_centre_by_centre():
    """By hand: a loop over positions and centres, in float64."""
    vlad, maps = shaken(VLAD(5, 4, 3)), noise(2, 5, 3, 2)
    parts = (vlad.reduce.weight[..., 0, 0], vlad.reduce.bias, vlad.centres)
    weight, bias, centres = (part.double().numpy() for part in parts)
    for picture, answer in zip(maps.double().numpy(), vlad(maps), strict=True):
        sums = np.zeros((3, 4))
        for x in picture.reshape(5, -1).T:
            spot = weight @ x + bias
            spot /= np.linalg.norm(spot)
            share = np.exp(30 * (centres @ spot))
            sums += (share / share.sum())[:, None] * (spot - centres)
        expected = sums / np.linalg.norm(sums, axis=1, keepdims=True) / math.sqrt(3)
        np.testing.assert_allclose(answer, expected.ravel(), atol=1e-5)


@torch.no_grad()
def test_vlad_does_not_mind_where_a_spot_lies():
    vlad, maps = VLAD(5, 4, 3), noise(1, 5, 4, 4)
    shuffled = maps.flatten(2)[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(0))].view(1, 5, 4, 4)
    torch.testing.assert_close(vlad(shuffled), vlad(maps))


@torch.no_grad()
def test_gem_of_large_p_is_the_maximum():
    """Between max · n^(-1/p) and max, for n values: p = 60 is as far as float32 goes here."""
    maps = 0.5 + torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    pooled, most = GeM(60.0)(maps), maps.amax((2, 3))
    assert (pooled <= most * 1.00001).all()
    assert (pooled >= most * 12 ** (-1 / 60)).all()


@torch.no_grad()
def test_new_attention_changes_nothing():
    maps = noise(2, 6, 4, 3)
    assert torch.equal(MapAttention(6)(maps), maps)


def test_new_attention_learns():
    """At the start the way out is zero, so that only it learns; with it moved, all of it does."""
    attention, maps = MapAttention(6), noise(2, 6, 4, 3)
    attention(maps).square().sum().backward()
    assert attention.expand.weight.grad.abs().max() > 0
    shaken(attention)(maps).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in attention.parameters())


@torch.no_grad()
def test_attention_is_its_formula():
    """Position by position: softmax of <q, k> / √d over all positions weighs the values."""
    attention, maps = shaken(MapAttention(6)), noise(2, 6, 2, 3)
    reduced = np.einsum("oc,nchw->nohw", attention.reduce.weight[:, :, 0, 0], maps)
    reduced = reduced + attention.reduce.bias.numpy()[:, None, None]
    actual = attention(maps)
    for n in range(2):
        query, key, value = reduced[n].reshape(3, 3, 6)  # 9 channels: three for each; 6 positions
        for u in range(6):
            scores = [float(query[:, u] @ key[:, v]) / math.sqrt(3) for v in range(6)]
            weights = np.exp(scores) / np.exp(scores).sum()
            seen = sum(weight * value[:, v] for v, weight in enumerate(weights))
            added = attention.expand.weight[:, :, 0, 0].numpy() @ seen + attention.expand.bias.numpy()
            expected = maps[n, :, u // 3, u % 3].numpy() + added
            np.testing.assert_allclose(actual[n, :, u // 3, u % 3], expected, atol=1e-5)


@torch.no_grad()
def test_the_attention_aggregator_standardises_its_channels():
    pooled = AttentionGeM(8)(noise(3, 8, 4, 4).abs())
    np.testing.assert_allclose(pooled.mean(1), np.zeros(3), atol=1e-5)
    np.testing.assert_allclose(pooled.numpy().std(1), np.ones(3), atol=1e-2)


@torch.no_grad()
def test_the_dense_head_adds_the_deep_to_the_fine():
    """By hand: 1×1 laterals are matrix products, nearest up-sampling repeats rows and columns."""
    head = shaken(DenseHead([5, 7], 4))
    fine, deep = noise(2, 5, 4, 4), noise(2, 7, 2, 2, seed=1)
    laterals = []
    for lateral, maps in zip(head.laterals, (fine, deep), strict=True):
        product = np.einsum("oc,nchw->nohw", lateral.weight[:, :, 0, 0], maps)
        laterals.append(product + lateral.bias.numpy()[:, None, None])
    joined = laterals[0] + laterals[1].repeat(2, axis=2).repeat(2, axis=3)
    padded = np.pad(joined, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = np.zeros((2, 4, 4, 4)) + head.smooth.bias.numpy()[:, None, None]
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + 4, column : column + 4]
            expected += np.einsum("oc,nchw->nohw", head.smooth.weight[:, :, row, column], window)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(head([fine, deep]), expected, atol=1e-5)


@torch.no_grad()
def test_odd_sides_fit_together():
    """100 px: maps of 13, 7 and 4 cells."""
    head = DenseHead([5, 6, 7], 4)
    assert head([noise(1, 5, 13, 13), noise(1, 6, 7, 7), noise(1, 7, 4, 4)]).shape == (1, 4, 13, 13)


@torch.no_grad()
def test_a_new_decoder_answers_as_matching_does():
    decoder = HeatmapDecoder(4, 2, logit_scale=5.0)
    tiles, cosines = [noise(2, 4, 6, 6), noise(2, 4, 3, 3)], [noise(2, 6, 6), noise(2, 3, 3)]
    expected = F.interpolate(5 * cosines[0][:, None], (12, 12), mode="bilinear")[:, 0]
    torch.testing.assert_close(decoder(tiles, cosines), expected)


def test_the_decoder_learns_from_every_scale():
    decoder = shaken(HeatmapDecoder(4, 3, width=8))
    tiles = [noise(2, 4, side, side).requires_grad_() for side in (8, 4, 2)]
    cosines = [noise(2, side, side).requires_grad_() for side in (8, 4, 2)]
    decoder(tiles, cosines).square().sum().backward()
    assert all(x.grad.abs().max() > 0 for x in [*tiles, *cosines, *decoder.parameters()])
