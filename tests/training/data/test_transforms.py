import math

import numpy as np
import pytest
import torch

from training.data import transforms
from training.data.transforms import augment, blur, colour, compress, haze, noise, recolour, season, shade

EACH = [season, shade, colour, haze, blur, noise]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return 0.1 + 0.8 * torch.rand(6, 3, 20, 24, generator=generator(9))


@pytest.mark.parametrize("transform", EACH)
def test_without_strength_nothing_changes(images, transform):
    torch.testing.assert_close(transform(images, generator(), strength=0.0), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", EACH)
def test_with_strength_something_changes(images, transform):
    images = images.repeat(4, 1, 1, 1)  # blur and haze come to some only
    changed = transform(images, generator(), strength=1.0)
    assert changed.shape == images.shape
    assert (changed - images).abs().amax((1, 2, 3)).max() > 0.02


@pytest.mark.parametrize("seed", range(10))
def test_augment_keeps_shape_range_and_the_input(images, seed):
    before = images.clone()
    out = augment(images, generator(seed))
    assert out.shape == images.shape
    assert 0 <= out.min() <= out.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(out, augment(images, generator(seed)))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_stay_finite(value):
    assert augment(torch.full((8, 3, 16, 16), value), generator()).isfinite().all()


def test_each_image_has_its_own_draw(images):
    same = images[:1].repeat(6, 1, 1, 1)
    out = augment(same, generator())
    assert all((out[i] - out[j]).abs().max() > 0.01 for i in range(6) for j in range(i))


def test_haze_mixes_with_white(images, monkeypatch):
    monkeypatch.setattr(transforms, "uniform", lambda n, low, high, _: torch.full((n, 1, 1, 1), 0.25))
    torch.testing.assert_close(haze(images, generator(), strength=1.0), images * 0.75 + 0.85 * 0.25)


def test_noise_has_the_drawn_deviation(monkeypatch):
    monkeypatch.setattr(transforms, "uniform", lambda n, low, high, _: torch.full((n, 1, 1, 1), 0.03))
    grey = torch.full((4, 3, 100, 100), 0.5)
    added = noise(grey, generator(), strength=1.0) - grey
    assert added.std().item() == pytest.approx(0.03, rel=0.02)
    assert abs(added.mean().item()) < 1e-3


def test_shade_is_smooth_and_grey(images):
    ratio = shade(images, generator(), strength=1.0) / images
    torch.testing.assert_close(ratio[:, 0], ratio[:, 1])
    assert 0.6 < ratio.min() < ratio.max() < 1.4
    assert ratio.diff(dim=-1).abs().max() < 0.15


@pytest.mark.parametrize("draw", [0.2, 0.45])
def test_blur_is_a_gaussian(images, monkeypatch, draw):
    """Against a loop over the 7 × 7 window, edges repeated."""
    monkeypatch.setattr(transforms, "uniform", lambda n, low, high, _: torch.full((n, 1, 1, 1), draw))
    blurred = blur(images, generator(), strength=1.0).double().numpy()
    sigma = 0.05 + 1.55 * draw
    weights = {(i, j): math.exp(-(i * i + j * j) / (2 * sigma**2)) for i in range(-3, 4) for j in range(-3, 4)}
    total = sum(weights.values())
    padded = np.pad(images.double().numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
    expected = sum(w / total * padded[:, :, 3 + i : 23 + i, 3 + j : 27 + j] for (i, j), w in weights.items())
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_seasons_mix_the_channels_of_every_pixel_alike(images):
    changed = season(images, generator(3), strength=1.0)
    before, after = images[0].flatten(1).double(), changed[0].flatten(1).double()
    mix = torch.linalg.lstsq(before.T, after.T).solution.T
    torch.testing.assert_close(mix @ before, after, atol=1e-5, rtol=0)
    assert 0.01 < (mix - torch.eye(3)).abs().max() <= 0.2501


def test_grey_is_tinted_by_white_balance_alone(monkeypatch):
    monkeypatch.setattr(transforms, "uniform", lambda n, low, high, _: torch.zeros(n, 1, 1, 1))
    grey = torch.full((2, 3, 8, 8), 0.5)
    out = colour(grey, generator(), strength=1.0)
    gains = out[:, :, 0, 0] / 0.5
    assert (gains > 0.84).all()
    assert (gains < 1.16).all()
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out))


def test_recoloured_pictures_take_the_colours_of_another(images):
    """Between its own and another picture's mean, channel by channel, and never at share 0."""
    assert torch.equal(recolour(images, generator(), share=0.0), images)
    dark = torch.cat((images * 0.2, images))
    changed = recolour(dark, generator(1), share=1.0)
    before, after = dark.mean((2, 3)), changed.mean((2, 3))
    assert (after - before).abs().max() > 0.1
    assert (after >= before.amin(0) - 0.02).all()
    assert (after <= before.amax(0) + 0.02).all()
    some = (recolour(dark, generator(2), share=0.3) != dark).flatten(1).any(1)
    assert 0 < some.sum() < len(dark)


def test_compressed_pictures_are_nearly_the_same(images):
    smooth = torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2)
    out = compress(smooth, generator(), share=0.5, quality=(60, 90))
    changed = (out != smooth).flatten(1).any(1)
    assert 0 < changed.sum() < len(smooth)
    assert (out - smooth).abs().mean() < 0.05
    assert torch.equal(compress(smooth, generator(), share=0.0, quality=(60, 90)), smooth)
