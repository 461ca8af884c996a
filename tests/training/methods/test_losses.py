import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.methods.losses import (
    info_nce,
    kl_with_temperature,
    masked_mean,
    nearest_rivals,
    pairwise_distances,
    rivals,
    triplet_terms,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def unit(n, d, seed):
    x = normal(n, d, seed=seed)
    return x / x.norm(dim=1, keepdim=True)


# InfoNCE


def by_hand(query, reference, scale, smoothing):
    """Σ over rows of -Σ_j target_ij log p_ij, in plain Python, both ways; one smoothing per pair."""
    n = len(query)
    total = 0.0
    for a, b in ((query, reference), (reference, query)):
        for i in range(n):
            scores = [scale * sum(x * y for x, y in zip(a[i].tolist(), b[j].tolist(), strict=True)) for j in range(n)]
            log_sum = math.log(sum(math.exp(s) for s in scores))
            for j in range(n):
                target = smoothing[i] / n + (1 - smoothing[i]) * (i == j)
                total -= target * (scores[j] - log_sum) / n
    return total / 2


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 14.0])
def test_info_nce_is_its_formula(scale, smoothing):
    query, reference = unit(5, 4, 0), unit(5, 4, 1)
    loss = info_nce(query, reference, torch.tensor(scale), label_smoothing=smoothing)
    assert loss.item() == pytest.approx(by_hand(query, reference, scale, [smoothing] * 5), rel=1e-9)


def test_every_pair_may_have_its_own_smoothing():
    query, reference, smoothing = unit(4, 3, 0), unit(4, 3, 1), [0.0, 0.2, 0.5, 0.9]
    loss = info_nce(query, reference, torch.tensor(7.0), label_smoothing=torch.tensor(smoothing, dtype=torch.float64))
    assert loss.item() == pytest.approx(by_hand(query, reference, 7.0, smoothing), rel=1e-9)


def test_both_views_play_the_same_part():
    query, reference, scale = unit(6, 4, 0), unit(6, 4, 1), torch.tensor(10.0)
    assert info_nce(query, reference, scale).item() == pytest.approx(info_nce(reference, query, scale).item())


@pytest.mark.parametrize("smoothing", [0.1, torch.tensor([0.0, 0.1, 0.4, 1.0])])
def test_gradients_of_info_nce_agree_with_finite_differences(smoothing):
    query, reference = unit(4, 3, 0).requires_grad_(), unit(4, 3, 1).requires_grad_()
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)

    def loss(*inputs):
        return info_nce(*inputs, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(loss, (query, reference, scale))


def test_alignment_is_cheap_and_misalignment_dear():
    places, scale = torch.eye(8, dtype=torch.float64), torch.tensor(30.0)
    assert info_nce(places, places, scale).item() < 1e-9
    assert info_nce(places, places.roll(1, 0), scale).item() == pytest.approx(30.0, abs=1e-6)


def test_without_knowledge_the_loss_is_log_of_the_batch():
    same = torch.ones(7, 4, dtype=torch.float64) / 2
    assert info_nce(same, same, torch.tensor(20.0)).item() == pytest.approx(math.log(7))


def test_autocast_does_not_round_the_scores():
    query, reference, scale = unit(16, 8, 0).float(), unit(16, 8, 1).float(), torch.tensor(50.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(query, reference, scale)
        assert (query @ reference.T).dtype == torch.bfloat16  # autocast is at work
    assert loss.item() == pytest.approx(info_nce(query, reference, scale).item(), rel=1e-6)


# distances


def slow_distance(a, b, kind):
    if kind == "cosine":
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    return math.dist(a, b) ** (2 if kind == "squared" else 1)


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("rows", [3, 40])  # torch has another algorithm above 25
def test_distances_are_those_of_plain_python(kind, rows):
    query, reference = normal(rows, 5, seed=0), normal(rows + 1, 5, seed=1)
    slow = [[slow_distance(q, r, kind) for r in reference.tolist()] for q in query.tolist()]
    torch.testing.assert_close(
        pairwise_distances(query, reference, kind), torch.tensor(slow, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_gradients_of_distances_agree_with_finite_differences(kind):
    inputs = (normal(4, 3, seed=0).requires_grad_(), normal(5, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(lambda q, r: pairwise_distances(q, r, kind), inputs)


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("rows", [2, 30])
def test_equal_vectors_have_distance_0_and_gradient_0(kind, rows):
    point = torch.tensor([0.6, 0.8]).expand(rows, 2)
    query = point.clone().requires_grad_()
    distance = pairwise_distances(query, point, kind)
    distance.sum().backward()
    torch.testing.assert_close(distance, torch.zeros(rows, rows), rtol=0, atol=1e-3)
    assert (distance >= 0).all()
    torch.testing.assert_close(query.grad, torch.zeros(rows, 2), rtol=0, atol=1e-3)


def test_cosine_distance_of_unit_vectors_is_half_the_square():
    query, reference = unit(4, 6, 0), unit(5, 6, 1)
    cosine, squared = (pairwise_distances(query, reference, kind) for kind in ("cosine", "squared"))
    torch.testing.assert_close(cosine, squared / 2)


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_half_precision_embeddings_are_measured_in_float32(kind):
    query, reference = unit(4, 6, 0).bfloat16(), unit(4, 6, 1).bfloat16()
    expected = pairwise_distances(query.double(), reference.double(), kind).float()
    torch.testing.assert_close(pairwise_distances(query, reference, kind), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(pairwise_distances(query, reference, kind), expected)


# triplets


def test_rivals_are_of_other_places():
    expected = [[False, True, False], [True, False, True], [False, True, False]]
    assert rivals(torch.tensor([7, 3, 7])).tolist() == expected


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=8),
    st.integers(1, 10),
    st.randoms(use_true_random=False),
)
def test_nearest_rivals_are_the_first_of_the_sorted_ones(places, k, random):
    n = len(places)
    distance = [random.sample(range(100), n) for _ in range(n)]  # no ties within a row
    chosen = nearest_rivals(torch.tensor(distance, dtype=torch.float64), rivals(torch.tensor(places)), k)
    for i in range(n):
        others = sorted((j for j in range(n) if places[j] != places[i]), key=lambda j: distance[i][j])
        assert chosen[i].nonzero().flatten().tolist() == sorted(others[:k])


def test_triplet_terms_by_hand():
    distance = torch.tensor([[0.5, 0.75, 2.0], [0.25, 1.0, 1.0], [1.5, 0.125, 0.0]])
    # row 0: 0.5 - d + 0.5, row 1: 1 - d + 0.5, row 2: 0 - d + 0.5
    expected = torch.tensor([[0.5, 0.25, 0.0], [1.25, 0.5, 0.5], [0.0, 0.375, 0.5]])
    torch.testing.assert_close(triplet_terms(distance, 0.5), expected)


def test_masked_mean_of_some_and_of_none():
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert masked_mean(values, torch.tensor([True, False, True])).item() == 3.5
    nothing = masked_mean(values, torch.tensor([False, False, False]))
    nothing.backward()
    assert nothing.item() == 0
    assert values.grad.tolist() == [0, 0, 0]


# distillation


def test_kl_by_hand():
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, 0.0]])  # (3/4, 1/4) and (1/2, 1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_with_temperature(teacher, student, 1.0).item() == pytest.approx(expected, rel=1e-6)
    # at T = 2 the same probabilities need twice the logits, and the loss counts four times
    assert kl_with_temperature(2 * teacher, student, 2.0).item() == pytest.approx(4 * expected, rel=1e-6)


def test_kl_is_not_symmetric_and_0_only_for_equal_predictions():
    teacher, student = normal(3, 5, seed=0), normal(3, 5, seed=1)
    assert kl_with_temperature(teacher, student, 2.0) > 0
    assert kl_with_temperature(teacher, student, 2.0) != kl_with_temperature(student, teacher, 2.0)
    assert kl_with_temperature(teacher, teacher + 3.0, 2.0).item() == pytest.approx(0, abs=1e-12)


def test_every_row_may_have_its_own_temperature():
    teacher, student, temperatures = normal(3, 5, seed=0), normal(3, 5, seed=1), [1.0, 2.0, 6.0]
    rows = [kl_with_temperature(teacher[i : i + 1], student[i : i + 1], t).item() for i, t in enumerate(temperatures)]
    together = kl_with_temperature(teacher, student, torch.tensor(temperatures))
    assert together.item() == pytest.approx(sum(rows) / 3, rel=1e-9)


def test_gradients_of_kl_agree_with_finite_differences():
    teacher, student = normal(3, 4, seed=0).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    temperature = torch.tensor([1.0, 3.0, 5.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda t, s: kl_with_temperature(t, s, temperature, detach_teacher=False), (teacher, student)
    )
    assert torch.autograd.gradcheck(lambda s: kl_with_temperature(teacher.detach(), s, temperature), (student,))


def test_the_teacher_learns_only_when_asked_to():
    teacher, student = normal(3, 4, seed=0).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    kl_with_temperature(teacher, student, 2.0).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0
    kl_with_temperature(teacher, student, 2.0, detach_teacher=False).backward()
    assert teacher.grad.abs().max() > 0


def test_clipping_bounds_a_row_and_scales_its_gradient():
    teacher = torch.tensor([[30.0, 0.0], [1.0, 0.0]], dtype=torch.float64)  # a row of 30 nats, and a small one
    student = torch.tensor([[0.0, 30.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    free = torch.stack([kl_with_temperature(teacher[i : i + 1], student[i : i + 1], 1.0) for i in (0, 1)])
    free.sum().backward()
    gradient, student.grad = student.grad, None
    clipped = kl_with_temperature(teacher, student, 1.0, clip_nats=5.0)
    clipped.backward()
    assert free[0].item() == pytest.approx(30.0, rel=1e-6)
    assert clipped.item() == pytest.approx((5 + free[1].item()) / 2, rel=1e-9)
    torch.testing.assert_close(student.grad[0], gradient[0] * 5 / free[0].item() / 2)
    torch.testing.assert_close(student.grad[1], gradient[1] / 2)


def test_kl_of_half_precision_logits_is_finite_and_float32():
    teacher = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    student = (-teacher).requires_grad_()
    for clip_nats in (None, 5.0):
        loss = kl_with_temperature(teacher, student, 4.0, clip_nats=clip_nats)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.isfinite().all()
