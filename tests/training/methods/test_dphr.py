import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import normalize

from training.batch import Batch, Features
from training.methods.base import Method, ModelShape
from training.methods.csp_hd import CSPHD, CSPHDConfig
from training.methods.dphr import DPHR, DPHRConfig, hardness, negative_weights
from training.methods.losses import pairwise_distances
from training.methods.progress import ProgressSignal
from training.methods.sample4geo import Sample4Geo, Sample4GeoConfig

SHAPE = ModelShape(embedding_dim=4, stage_channels=(4, 4, 4, 4), local_dim=None, places=6, image_size=32)


class Turned(Method):
    """A host with a third view, whose loss is a constant: what is left is DPHR's."""

    needs_stages = True

    def views(self, batch, progress, generator):
        return {**super().views(batch, progress, generator), "turned": batch.photo.rot90(dims=(2, 3))}

    def forward(self, features, batch):
        return {"loss": torch.tensor(7.0), "triplet": features["turned"].embedding.sum()}


def host(name):
    torch.manual_seed(0)
    hosts = {
        "sample4geo": lambda: Sample4Geo(Sample4GeoConfig(), SHAPE),
        "csp_hd": lambda: CSPHD(CSPHDConfig(hidden_dim=8), SHAPE),
        "turned": Turned,
    }
    return hosts[name]()


def make_batch(places):
    n = len(places)
    nothing, unknown = torch.rand(n, 3, 2, 2), torch.full((n,), torch.nan)
    return Batch(nothing, nothing, torch.tensor(places), unknown[:, None].expand(n, 2), unknown, torch.ones(n))


def make_features(n, seed=0, dtype=torch.float32):
    numbers = torch.randn(3, n, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    views = normalize(numbers, dim=-1)
    return {name: Features(view, (view,) * 4) for name, view in zip(("photo", "tile", "turned"), views, strict=True)}


# RDA

distances = st.integers(1, 200).map(lambda hundredths: hundredths / 100)


@settings(max_examples=100)
@given(distances, distances, st.floats(0.1, 100))
def test_hardness_is_a_share_that_knows_no_scale(positive, negative, factor):
    h = hardness(torch.tensor([[positive, negative], [negative, positive]], dtype=torch.float64))
    assert h[0, 1].item() == pytest.approx(positive / (positive + negative))
    assert 0 < h[0, 1] < 1
    assert (h[0, 1] > 0.5) == (positive > negative)
    scaled = hardness(factor * torch.tensor([[positive, negative], [negative, positive]], dtype=torch.float64))
    torch.testing.assert_close(scaled, h)


@settings(max_examples=50)
@given(distances, distances, st.floats(0.01, 1.0))
def test_hardness_grows_with_the_positive_distance_and_falls_with_the_negative_one(positive, negative, more):
    def h(p, n):
        return hardness(torch.tensor([[p, n], [n, p]], dtype=torch.float64))[0, 1]

    assert h(positive + more, negative) > h(positive, negative) > h(positive, negative + more)


def test_two_zeros_are_a_tie():
    assert hardness(torch.zeros(2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_every_row_has_its_own_positive():
    # row 0: 1 / (1 + 3), row 1: 2 / (2 + 6)
    torch.testing.assert_close(
        hardness(torch.tensor([[1.0, 3.0], [6.0, 2.0]])), torch.tensor([[0.5, 0.25], [0.25, 0.5]])
    )


@settings(max_examples=50)
@given(distances, distances, st.tuples(st.floats(0, 1), st.floats(1, 3)))
def test_weights_stay_in_their_interval_and_are_linear(positive, negative, interval):
    distance = torch.tensor([[positive, negative], [negative, positive]], dtype=torch.float64)
    low, high = interval
    weights = negative_weights(distance, interval)
    assert low - 1e-12 <= weights.min()
    assert weights.max() <= high + 1e-12
    torch.testing.assert_close(weights, low + (high - low) * hardness(distance))


def test_a_tie_weighs_1_by_default():
    assert negative_weights(torch.ones(3, 3), DPHRConfig().weights).tolist() == [[1.0] * 3] * 3


def test_weights_are_constants_to_the_gradient():
    distance = torch.rand(3, 3, requires_grad=True)
    assert not negative_weights(distance, (0.5, 1.5)).requires_grad


# the losses


def by_hand(distance, places, config):
    """Both triplet losses over plain lists: every query of both directions, every negative that counts."""
    n = len(places)
    flipped = [[distance[j][i] for j in range(n)] for i in range(n)]
    ways = []
    for d in (distance, flipped):
        terms = []
        for i in range(n):
            others = sorted((j for j in range(n) if places[j] != places[i]), key=lambda j: d[i][j])
            kept = {"all": n, "topk": config.k, "hardest": 1}[config.negatives]
            for j in others[:kept]:
                if config.loss == "hinge":
                    term = max(0.0, d[i][i] - d[i][j] + config.margin)
                else:
                    term = math.log(1 + math.exp(config.gamma * (d[i][i] - d[i][j])))
                low, high = config.weights
                terms.append((term, (low + (high - low) * d[i][i] / (d[i][i] + d[i][j])) * term))
        ways.append([sum(column) / len(terms) for column in zip(*terms, strict=True)])
    return [(a + b) / 2 for a, b in zip(*ways, strict=True)]


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0]])
@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"negatives": "topk", "k": 2},
        {"negatives": "hardest"},
        {"loss": "soft", "gamma": 4.0},
        {"margin": 0.8, "weights": (0.0, 1.0)},
    ],
)
def test_the_losses_are_those_of_plain_python(knobs, distance, places):
    config = DPHRConfig(distance=distance, **knobs)
    features = make_features(len(places), dtype=torch.float64)
    parts = DPHR(config, Turned())(features, make_batch(places))
    table = pairwise_distances(features["photo"].embedding, features["tile"].embedding, distance).tolist()
    expected = by_hand(table, places, config)
    assert [parts["triplet"].item(), parts["weighted_triplet"].item()] == pytest.approx(expected, rel=1e-6)


def test_two_pairs_by_hand():
    # on the unit circle at 0°, 90° (photos) and 0°, 180° (tiles): distances [[0, 2], [√2, √2]], margin 1
    views = {
        "photo": Features(torch.tensor([[1.0, 0.0], [0.0, 1.0]])),
        "tile": Features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])),
        "turned": Features(torch.zeros(2, 2)),
    }
    parts = DPHR(DPHRConfig(margin=1.0), Turned())(views, make_batch([0, 1]))
    r = math.sqrt(2)
    # photo → tile: [0 - 2 + 1]₊ = 0 and [√2 - √2 + 1]₊ = 1 (a tie, weight 1); tile → photo: [0 - √2 + 1]₊ = 0 and
    # [√2 - 2 + 1]₊ = √2 - 1 with hardness √2 / (√2 + 2), the weight half more than that
    assert parts["triplet"].item() == pytest.approx((1 + r - 1) / 4)
    assert parts["weighted_triplet"].item() == pytest.approx((1 + (0.5 + r / (r + 2)) * (r - 1)) / 4)
    assert parts["lambda"].item() == 0
    assert parts["loss"].item() == pytest.approx(7 + (1 + r - 1) / 4)


def test_equal_distances_weigh_as_a_tie():
    same = normalize(torch.ones(4, 4), dim=-1)
    views = {name: Features(same) for name in ("photo", "tile", "turned")}
    parts = DPHR(DPHRConfig(weights=(1.0, 3.0)), Turned())(views, make_batch([0, 1, 2, 3]))
    assert parts["triplet"].item() == pytest.approx(0.3, abs=1e-3)
    assert parts["weighted_triplet"].item() == pytest.approx(2 * parts["triplet"].item(), rel=1e-3)


@pytest.mark.parametrize("places", [[3], [3, 3, 3]])
def test_without_negatives_nothing_is_lost_and_nothing_learnt(places):
    photo = normalize(torch.rand(len(places), 4), dim=-1).requires_grad_()
    views = make_features(len(places)) | {"photo": Features(photo)}
    parts = DPHR(DPHRConfig(progressive=False), Turned())(views, make_batch(places))
    parts["loss"].backward()
    assert parts["triplet"].item() == parts["weighted_triplet"].item() == 0
    assert parts["loss"].item() == 7
    assert photo.grad.abs().max() == 0


def test_bfloat16_embeddings_lose_nothing_more():
    features, batch = make_features(6), make_batch(range(6))
    rounded = {name: Features(f.embedding.bfloat16()) for name, f in features.items()}
    widened = {name: Features(f.embedding.double()) for name, f in rounded.items()}
    half, full = (DPHR(DPHRConfig(), Turned())(views, batch)["triplet"] for views in (rounded, widened))
    assert half.item() == pytest.approx(full.item(), rel=1e-5)


# gradients


@pytest.mark.parametrize("distance", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("loss", ["hinge", "soft"])
def test_gradients_agree_with_finite_differences(distance, loss):
    # weights of 1 and a fixed λ: what is stopped on purpose does not move, and finite differences see the rest
    config = DPHRConfig(distance=distance, loss=loss, weights=(1.0, 1.0), progressive=False, lambda_max=0.7, mu=1.3)
    method, batch, fixed = DPHR(config, Turned()), make_batch([0, 1, 2, 0]), make_features(4, dtype=torch.float64)

    def total(photo, tile):
        return method(fixed | {"photo": Features(photo), "tile": Features(tile)}, batch)["loss"]

    inputs = [fixed[name].embedding.clone().requires_grad_() for name in ("photo", "tile")]
    assert torch.autograd.gradcheck(total, inputs)


def test_neither_weights_nor_lambda_carry_gradients():
    """The gradient of the loss is that of the formula with both frozen at their values."""
    config = DPHRConfig(window=1, beta=0.5, weights=(0.0, 2.0), margin=5.0, mu=1.3)
    method, batch = DPHR(config, Turned()), make_batch([0, 1, 2])
    before = make_features(3, seed=1)
    before["tile"] = Features(before["photo"].embedding.roll(1, 0))
    method(before, batch)  # the reference: worse than what follows, so that λ has moved
    features = make_features(3)
    photo, tile = (features[name].embedding.clone().requires_grad_() for name in ("photo", "tile"))
    parts = method(features | {"photo": Features(photo), "tile": Features(tile)}, batch)
    assert not parts["lambda"].requires_grad
    assert parts["lambda"] > 0
    found = torch.autograd.grad(parts["loss"], (photo, tile))

    distance, weight = torch.cdist(photo, tile), parts["lambda"].item()
    loss = torch.tensor(0.0)
    for d in (distance, distance.T):
        frozen = d.tolist()
        for i in range(3):
            for k in {0, 1, 2} - {i}:
                term = (d[i, i] - d[i, k] + 5).clamp(min=0)
                loss = loss + 1.3 * (1 + weight * 2 * frozen[i][i] / (frozen[i][i] + frozen[i][k])) * term / 12
    for ours, theirs in zip(found, torch.autograd.grad(loss, (photo, tile)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# PALW


def test_lambda_grows_while_the_triplet_loss_falls_and_returns_when_it_rises():
    method, batch = DPHR(DPHRConfig(window=2, beta=0.5, lambda_max=2.0), Turned()), make_batch([0, 1, 2, 3])
    apart = torch.eye(4)
    good, bad = ({name: Features(apart) for name in ("photo", "tile", "turned")} for _ in range(2))
    bad["tile"] = Features(apart.roll(1, 0))
    path = [method(views, batch)["lambda"].item() for views in [bad] * 3 + [good] * 8 + [bad] * 8]
    assert path[:3] == [0, 0, 0]
    assert path[2:11] == sorted(path[2:11])
    assert 1.9 < path[10] <= 2.0
    assert path[12:] == sorted(path[12:], reverse=True)
    assert path[-1] < 0.05


def test_the_signal_is_the_unweighted_loss():
    method, signal = DPHR(DPHRConfig(window=2, beta=0.5), Turned()), ProgressSignal(0.0, 1.0, window=2, beta=0.5)
    for seed in (5, 4, 3, 2, 1, 0):
        features = make_features(5, seed)
        near = features["photo"].embedding + 0.2 * seed * features["tile"].embedding
        parts = method(features | {"tile": Features(normalize(near, dim=-1))}, make_batch(range(5)))
        assert parts["lambda"].item() == signal(parts["triplet"]).item()
    assert 0.1 < parts["lambda"] < 0.9


def test_the_total_is_host_plus_mu_times_both_losses():
    method, features, batch = (
        DPHR(DPHRConfig(mu=0.5, window=1, beta=0.0), Turned()),
        make_features(4),
        make_batch(range(4)),
    )
    for tile in (features["photo"].embedding.roll(1, 0), features["tile"].embedding):
        parts = method(features | {"tile": Features(tile)}, batch)
        expected = 7 + 0.5 * (parts["triplet"] + parts["lambda"] * parts["weighted_triplet"])
        assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert parts["lambda"] > 0


def test_rda_alone_weighs_fully_from_the_first_step():
    method = DPHR(DPHRConfig(progressive=False, lambda_max=0.8, window=1), Turned())
    path = [method(make_features(4, seed), make_batch(range(4)))["lambda"].item() for seed in range(4)]
    assert path == pytest.approx([0.8] * 4)


def test_palw_alone_weighs_all_negatives_alike():
    parts = DPHR(DPHRConfig(weights=(1.0, 1.0)), Turned())(make_features(5), make_batch(range(5)))
    assert parts["weighted_triplet"].item() == pytest.approx(parts["triplet"].item(), rel=1e-6)


# the plug-in


def test_views_stages_and_parts_are_the_hosts():
    method, batch = DPHR(DPHRConfig(), Turned()), make_batch(range(3))
    assert method.needs_stages
    assert not DPHR(DPHRConfig(), host("sample4geo")).needs_stages
    views = method.views(batch, 0.0, torch.Generator())
    assert torch.equal(views["turned"], batch.photo.rot90(dims=(2, 3)))
    assert set(views) == {"photo", "tile", "turned"}
    features = make_features(3)
    parts = method(features, batch)
    assert parts["host"] == 7
    assert parts["host/triplet"] == features["turned"].embedding.sum()
    assert set(parts) == {"loss", "host", "triplet", "weighted_triplet", "lambda", "host/triplet"}


@pytest.mark.parametrize("name", ["sample4geo", "csp_hd"])
def test_the_hosts_loss_is_untouched_and_its_weights_are_learnt(name):
    features, batch = make_features(6), make_batch(range(6))
    alone, plugged = host(name)(features, batch), DPHR(DPHRConfig(), host(name))
    parts = plugged(features, batch)
    assert parts["host"].item() == pytest.approx(alone["loss"].item())
    assert {f"host/{key}" for key in alone if key != "loss"} < set(parts)
    parts["loss"].backward()
    assert all(p.grad is not None for p in plugged.parameters())


@pytest.mark.parametrize("name", ["sample4geo", "csp_hd"])
def test_a_checkpoint_goes_on_as_if_it_had_never_stopped(name):
    batch, config = make_batch(range(6)), DPHRConfig(window=3, beta=0.5)

    def run(method, seeds):
        return [method(make_features(6, seed), batch)["loss"].item() for seed in seeds]

    whole = DPHR(config, host(name))
    first = copy.deepcopy(whole)
    expected = run(whole, range(8))
    run(first, range(4))
    second = DPHR(config, host(name))
    second.load_state_dict(first.state_dict())
    assert run(second, range(4, 8)) == expected[4:]


@pytest.mark.parametrize("name", ["sample4geo", "csp_hd", "turned"])
def test_free_embeddings_are_told_apart(name):
    """With the constant host DPHR does it alone."""
    torch.manual_seed(0)
    method, free = DPHR(DPHRConfig(window=5), host(name)), nn.Parameter(torch.randn(3, 6, 4))
    optimizer = torch.optim.Adam([free, *method.parameters()], lr=0.05)
    batch, right = make_batch(range(6)), torch.arange(6)

    def embed():
        views = normalize(free, dim=-1)
        return {n: Features(v, (v,) * 4) for n, v in zip(("photo", "tile", "turned"), views, strict=True)}

    def recalled():
        scores = embed()["photo"].embedding @ embed()["tile"].embedding.T
        return torch.equal(scores.argmax(1), right) and torch.equal(scores.argmax(0), right)

    assert not recalled()
    for _ in range(150):
        optimizer.zero_grad()
        parts = method(embed(), batch)
        parts["loss"].backward()
        optimizer.step()
    assert recalled()
    assert parts["lambda"] > 0.5


@pytest.mark.parametrize(
    "wrong", [{"weights": (1.5, 0.5)}, {"beta": 1.0}, {"window": 0}, {"k": 0}, {"distance": "manhattan"}, {"typo": 1}]
)
def test_wrong_knobs_are_refused(wrong):
    with pytest.raises(ValidationError):
        DPHRConfig(**wrong)
