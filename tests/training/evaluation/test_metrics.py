import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.base import Task
from training.errors import TrainingError
from training.evaluation.metrics import (
    Sdm,
    average_precision,
    distance_m,
    metrics,
    one_percent,
    position_metrics,
    spatial_distance,
)
from training.evaluation.search import search


def measure(queries, gallery, positives, semis=None, full_gallery=None, memory_images=None, **where):
    """``metrics`` of embeddings, in a task whose images are not looked at."""
    task = Task(
        "t",
        memory_images(torch.zeros(len(queries), 3, 1, 1), np.zeros(len(queries)), where.get("asked")),
        memory_images(torch.zeros(len(gallery), 3, 1, 1), np.zeros(len(gallery)), where.get("held")),
        positives,
        semis,
    )
    return metrics(search(queries, gallery, positives, semis), task, full_gallery=full_gallery or len(gallery))


@given(seed=st.integers(0, 2**32 - 1), full_gallery=st.integers(40, 2000))
def test_metrics_are_those_of_the_slow_evaluator(seed, full_gallery, random_case, slow, memory_images):
    queries, gallery, positives, semis = random_case(seed)
    ours = measure(queries, gallery, positives, semis, full_gallery, memory_images)
    theirs = slow.metrics(queries, gallery, positives, semis, full_gallery)
    assert ours == pytest.approx(theirs, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
def test_bounds_with_one_positive(seed, unit_vectors, memory_images):
    rng = np.random.default_rng(seed)
    queries, gallery = unit_vectors(rng, 40), unit_vectors(rng, 30)
    found = measure(queries, gallery, [rng.integers(0, 30, 1) for _ in queries], memory_images=memory_images)
    recall = found["recall@1"]
    assert recall <= found["ap"] + 1e-12
    assert found["ap"] <= recall + 0.25 * (1 - recall) + 1e-12
    assert recall <= found["ap_plain"] + 1e-12
    assert found["ap_plain"] <= recall + 0.5 * (1 - recall) + 1e-12
    assert recall <= found["recall@5"] <= found["recall@10"]
    assert "hit_rate" not in found


@pytest.mark.parametrize(
    ("ranks", "trapezoid", "plain"),
    [
        ([0], 1, 1),
        ([1], 1 / 4, 1 / 2),
        ([4], 1 / 10, 1 / 5),
        ([0, 1, 2], 1, 1),
        ([0, 2], (1 + (2 / 3 + 1 / 2) / 2) / 2, (1 + 2 / 3) / 2),
        ([1, 3], ((1 / 2 + 0) / 2 + (2 / 4 + 1 / 3) / 2) / 2, (1 / 2 + 2 / 4) / 2),
        ([], 0, 0),
    ],
)
def test_average_precision_by_hand(ranks, trapezoid, plain):
    assert average_precision(np.array(ranks, np.int64)) == pytest.approx((trapezoid, plain))


@pytest.mark.parametrize(("gallery", "k"), [(951, 11), (51_355, 515), (200, 3), (10_000, 101), (50, 1), (150, 3)])
def test_one_percent_is_one_further_than_it_sounds(gallery, k):
    assert one_percent(gallery) == k


def test_queries_without_a_positive_stay_in_the_denominator(memory_images):
    eye = np.eye(3, dtype=np.float32)
    nothing = np.array([], np.int64)
    found = measure(eye, eye, [np.array([0]), nothing, nothing], memory_images=memory_images)
    assert found["recall@1"] == found["recall@1%"] == found["recall@10"] == found["ap"] == pytest.approx(1 / 3)


def test_sdm_in_closed_form():
    s = 5000.0
    near, far = math.log(2) / s, math.log(8) / s  # worth 1/2 and 1/8
    distance = np.array([[0, near, far], [far, far, far]])
    assert spatial_distance(distance[:, :1], s) == pytest.approx((1 + 1 / 8) / 2)
    assert spatial_distance(distance, s) == pytest.approx(((3 + 2 / 2 + 1 / 8) / 6 + 1 / 8) / 2)


def test_sdm_of_a_constant_distance_does_not_depend_on_k():
    for k in (1, 2, 10):
        assert spatial_distance(np.full((4, k), 700.0), 0.001) == pytest.approx(math.exp(-0.7))


def test_position_metrics_by_hand():
    degree_m = math.pi * 6_371_008.8 / 180
    steps_m = np.array([[0.0, 30, 60], [4, 8, 12], [20, 0, 0], [500, 0, 0]])
    asked = np.tile([[10.0, 20.0]], (4, 1))
    answers = np.stack([10 + steps_m / degree_m, np.full_like(steps_m, 20.0)], axis=-1)
    sdm = {"deg": Sdm("degrees", 5000.0), "m": Sdm("metres", 0.001)}
    found = position_metrics(asked, answers, sdm)
    within = {f"within_{limit}m": share for limit, share in ((1, 0.25), (5, 0.5), (10, 0.5), (25, 0.75), (50, 0.75))}
    first = steps_m[:, 0]
    expected = within | {"error_median_m": 12, "error_mean_m": 131, "dis_m@1": 131}
    expected |= {"dis_m@3": steps_m.mean(), "dis_m@5": steps_m.mean()}
    expected["sdm_m@1"] = np.mean(np.exp(-first / 1000))
    expected["sdm_deg@1"] = np.mean(np.exp(-5000 * first / degree_m))
    expected["sdm_m@3"] = np.mean(np.exp(-steps_m / 1000) @ [3, 2, 1]) / 6
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert found["sdm_m@10"] == found["sdm_m@3"]  # there are but three answers


def test_distance_against_the_law_of_cosines_on_the_sphere():
    rng = np.random.default_rng(0)
    a, b = (rng.uniform([-80, -179], [80, 179], (50, 2)) for _ in range(2))

    def point(place):
        lat, lon = np.radians(place).T
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)

    angle = np.arccos((point(a) * point(b)).sum(1))
    np.testing.assert_allclose(distance_m(a, b), 6_371_008.8 * angle, rtol=1e-9)
    across = distance_m(np.array([[0.0, 179.9995]]), np.array([[0.0, -179.9995]]))
    np.testing.assert_allclose(across, 0.001 * math.pi / 180 * 6_371_008.8)


def test_metres_are_of_the_first_answer(memory_images):
    eye = np.eye(3, dtype=np.float32)
    held = [[50.0, 8.0], [50.001, 8.0], [50.01, 8.0]]
    own = [np.array([0]), np.array([2]), np.array([2])]
    asked = [held[0], held[2], held[2]]
    found = measure(eye, eye, own, memory_images=memory_images, asked=asked, held=held)
    step_m = 0.009 * math.pi / 180 * 6_371_008.8
    assert found["error_mean_m"] == pytest.approx(step_m / 3)
    assert found["error_median_m"] == pytest.approx(0, abs=1e-6)
    assert found["within_1m"] == pytest.approx(2 / 3)
    assert found["sdm_denseuav@1"] == pytest.approx((2 + math.exp(-5000 * 0.009)) / 3)
    assert found["sdm_gta_uav@1"] == pytest.approx((2 + math.exp(-0.001 * step_m)) / 3)


def test_without_positions_there_are_no_metres(memory_images):
    eye = np.eye(3, dtype=np.float32)
    own = [np.array([i]) for i in range(3)]
    found = measure(eye, eye, own, memory_images=memory_images, asked=[[0, 0]] * 3)
    assert set(found) == {"recall@1", "recall@5", "recall@10", "recall@1%", "ap", "ap_plain"}


def test_a_missing_position_is_named(memory_images):
    eye = np.eye(2, dtype=np.float32)
    own = [np.array([i]) for i in range(2)]
    with pytest.raises(TrainingError, match=r"0001\.jpg has no finite position"):
        measure(eye, eye, own, memory_images=memory_images, asked=[[0, 0]] * 2, held=[[0, 0], [np.nan, 0]])
