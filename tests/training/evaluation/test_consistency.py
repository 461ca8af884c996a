import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from training.config import ModelConfig
from training.evaluation.consistency import consistency, grad_cam, ssim
from training.models.encoder import Encoder


def pictures(n, side=64, seed=0):
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (side, side), mode="bilinear")


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    config = ModelConfig("test_efficientnet", weights="none", embedding_dim=32, image_size=64, frozen_stages=2)
    return Encoder(config).eval()


class Plain(torch.nn.Module):
    """Maps are 8 × 8 px means of the picture, weighed by position; embeddings the unit mean of their squares."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def last_map(self, image):
        return F.avg_pool2d(image.permute(0, 3, 1, 2) / 255, 8) * self.weight

    def embed(self, maps):
        return F.normalize(maps.square().mean((2, 3)), dim=1)

    def forward(self, image):
        return self.embed(self.last_map(image))


# --- SSIM --------------------------------------------------------------------------------------------------------


def slow_ssim(a, b):
    """Wang et al., 2004, window by window: Gaussian weights that sum to 1, K1 = 0.01, K2 = 0.03, L = 1."""
    window = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)])
    window /= window.sum()
    values = []
    for row in range(a.shape[0] - 10):
        for column in range(a.shape[1] - 10):
            x, y = (m[row : row + 11, column : column + 11] for m in (a, b))
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append(
                (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)),
            )
    return np.mean(values)


def test_ssim_is_its_formula():
    rng = np.random.default_rng(0)
    first, second = rng.random((3, 14, 17)), rng.random((3, 14, 17))
    second[1] = 0.7 * first[1] + 0.3 * second[1]
    expected = [slow_ssim(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ssim(torch.from_numpy(first), torch.from_numpy(second)), expected, rtol=1e-9)


def test_ssim_of_equal_and_of_flat_pictures():
    picture = pictures(2)[:, 0].double()
    torch.testing.assert_close(ssim(picture, picture), torch.ones(2, dtype=torch.float64))
    dark, light = torch.full((1, 12, 12), 0.2).double(), torch.full((1, 12, 12), 0.8).double()
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert ssim(dark, light).item() == pytest.approx(expected, rel=1e-5)


def test_ssim_of_opposite_pictures_is_negative():
    picture = pictures(2)[:, 0]
    assert (ssim(picture, 1 - picture) < 0).all()


# --- Grad-CAM ----------------------------------------------------------------------------------------------------


def test_grad_cam_is_its_formula():
    """α by finite differences: raising a whole channel by ε changes the cosine by ε times its summed gradient."""
    images, network = pictures(1).double(), Plain(torch.rand(8, 8, generator=torch.Generator().manual_seed(1)))
    target = torch.tensor([[0.6, -0.64, 0.48]], dtype=torch.float64)
    maps = network.last_map(images.mul(255).permute(0, 2, 3, 1))
    step = 1e-5 * torch.eye(3, dtype=torch.float64)[:, :, None, None]
    cosine = [(network.embed(maps + sign * step) * target).sum(1) for sign in (1, -1)]
    alpha = (cosine[0] - cosine[1]) / (2e-5 * 64)
    expected = (alpha[:, None, None] * maps[0]).sum(0).clamp(min=0)
    assert 0 < (expected > 0).sum() < 64
    expected = F.interpolate(expected[None, None], (64, 64), mode="bilinear")[0, 0]
    torch.testing.assert_close(grad_cam(network, images, target)[0], expected, rtol=1e-6, atol=1e-12)


def test_grad_cam_of_a_bright_corner():
    """The only ground that is like the target is where attention goes."""
    images = torch.zeros(1, 3, 64, 64)
    images[0, 0] = 0.2
    images[0, :, :16, 48:] = torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    cam = grad_cam(Plain(1.0), images, torch.tensor([[0.0, 1.0, 0.0]]))[0]
    row, column = divmod(int(cam.argmax()), 64)
    assert row < 16
    assert column >= 48
    assert cam[32:, :32].max() == 0


def test_grad_cam_works_for_a_network_that_trains_nothing():
    torch.manual_seed(0)
    config = ModelConfig("test_efficientnet", weights="none", embedding_dim=32, image_size=64, frozen_stages=0)
    frozen = Encoder(config).eval().requires_grad_(False)
    target = F.normalize(torch.ones(2, 32), dim=1)
    assert grad_cam(frozen, pictures(2), target).shape == (2, 64, 64)


# --- scores ------------------------------------------------------------------------------------------------------


def test_a_network_that_looks_at_the_same_ground_is_consistent():
    """Quarter turns permute means of squares: its maps turn with the picture, exactly."""
    scores = consistency(Plain(1.0), pictures(4), pictures(4, seed=1), angles_deg=(90, 180, 270), crop_area=(1.0,))
    assert scores.orientation == pytest.approx(1, abs=1e-4)
    assert scores.coverage == pytest.approx(1, abs=1e-4)


def test_a_network_that_looks_at_a_corner_of_the_picture_is_not():
    weight = torch.full((8, 8), 0.1)
    weight[:4, :4] = 3.0
    scores = consistency(Plain(weight), pictures(4), pictures(4, seed=1), angles_deg=(90, 180, 270), crop_area=(0.3,))
    assert scores.orientation < 0.8
    assert scores.coverage < 0.9


def test_scores_do_not_depend_on_the_batches(encoder):
    images, paired = pictures(5), pictures(5, seed=1)
    knobs = {"angles_deg": (45,), "crop_area": (0.5,)}
    whole, parts = (consistency(encoder, images, paired, batch=n, **knobs) for n in (5, 2))
    assert whole.orientation == pytest.approx(parts.orientation, abs=1e-5)
    assert whole.coverage == pytest.approx(parts.coverage, abs=1e-5)
    assert 0 < whole.orientation < 1
    assert 0 < whole.coverage < 1


def test_the_network_is_left_as_it_was(encoder):
    encoder.train()
    consistency(encoder, pictures(1), pictures(1), angles_deg=(30,), crop_area=(0.5,))
    assert encoder.training
    assert all(p.grad is None for p in encoder.parameters())
    encoder.eval()
