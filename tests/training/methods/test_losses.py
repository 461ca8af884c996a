import math

import pytest
import torch

from training.config import Config
from training.methods.base import InfoNCE, make_method
from training.methods.losses import info_nce


def unit(n, d, seed):
    x = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True)


def by_hand(query, reference, scale, smoothing):
    """Σ over rows of -Σ_j target_ij log p_ij, in plain Python, both ways."""
    n = len(query)
    total = 0.0
    for a, b in ((query, reference), (reference, query)):
        for i in range(n):
            scores = [scale * sum(x * y for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True)) for j in range(n)]
            log_sum = math.log(sum(math.exp(s) for s in scores))
            for j in range(n):
                target = smoothing / n + (1 - smoothing) * (i == j)
                total -= target * (scores[j] - log_sum) / n
    return total / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_info_nce_is_its_formula(scale, smoothing):
    query, reference = unit(5, 4, 0), unit(5, 4, 1)
    loss = info_nce(query, reference, torch.tensor(scale), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(by_hand(query, reference, scale, smoothing), rel=1e-9)


def test_both_views_play_the_same_part():
    query, reference, scale = unit(6, 4, 0), unit(6, 4, 1), torch.tensor(10.0)
    assert info_nce(query, reference, scale).item() == pytest.approx(info_nce(reference, query, scale).item())


def test_gradients_agree_with_finite_differences():
    query, reference = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)

    def loss(*inputs):
        return info_nce(*inputs, label_smoothing=0.1)

    torch.autograd.gradcheck(loss, (query, reference, scale))


def test_alignment_is_cheap_and_misalignment_dear():
    places, scale = torch.eye(8, dtype=torch.float64), torch.tensor(30.0)
    assert info_nce(places, places, scale).item() < 1e-9
    assert info_nce(places, places.roll(1, 0), scale).item() == pytest.approx(30.0, abs=1e-6)


def test_without_knowledge_the_loss_is_log_of_the_batch():
    same = torch.ones(7, 4, dtype=torch.float64) / 2
    assert info_nce(same, same, torch.tensor(20.0)).item() == pytest.approx(math.log(7))


def test_the_method_learns_its_temperature():
    method = make_method(Config())
    assert isinstance(method, InfoNCE)
    query, reference = unit(5, 4, 0).float(), unit(5, 4, 1).float()
    loss = method(query, reference)
    expected = by_hand(query, reference, 1 / 0.07, Config().optim.label_smoothing)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert method.log_scale.grad.abs() > 1e-3
