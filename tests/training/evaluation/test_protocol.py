import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.base import Task, same_place
from training.errors import TrainingError
from training.evaluation.protocol import filtered, judge


def place_task(rng, memory_images):
    """A task in which places match, with distractors; its images are blank."""
    q, g = rng.integers(1, 20), rng.integers(1, 40)
    queries = memory_images(torch.zeros(q, 3, 1, 1), rng.integers(0, 12, q), rng.uniform(0, 1, (q, 2)))
    gallery = memory_images(torch.zeros(g, 3, 1, 1), rng.integers(0, 30, g), rng.uniform(0, 1, (g, 2)))
    gallery.place[0] = queries.place[0]
    return Task("t", queries, gallery, same_place(queries, gallery))


@given(seed=st.integers(0, 2**32 - 1))
def test_filtered_is_a_gallery_without_the_places_nobody_asks_for(seed, unit_vectors, memory_images):
    rng = np.random.default_rng(seed)
    task = place_task(rng, memory_images)
    asked, held = unit_vectors(rng, len(task.queries)), unit_vectors(rng, len(task.gallery))
    keep = [i for i, place in enumerate(task.gallery.place) if place in task.queries.place]
    images = task.gallery
    small = memory_images(images.images[keep], images.place[keep], images.position[keep])
    reduced = Task("t", task.queries, small, same_place(task.queries, small))

    ours, theirs = judge(task, asked, held, "filtered"), judge(reduced, asked, held[keep], "full")
    assert ours.counts == theirs.counts
    assert ours.task.gallery.name == [images.name[i] for i in keep]
    np.testing.assert_array_equal(ours.ranking.top, theirs.ranking.top)
    del ours.metrics["recall@1%"], theirs.metrics["recall@1%"]  # counts from the full gallery: see below
    assert ours.metrics == theirs.metrics


def test_recall_at_one_percent_counts_from_the_full_gallery(memory_images):
    """300 images, 3 of them asked for: K is 4 either way, and the filtered gallery is within it."""
    angle = np.linspace(0, 1, 300, dtype=np.float32)
    held = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    queries = memory_images(torch.zeros(3, 3, 1, 1), [100, 200, 299])
    gallery = memory_images(torch.zeros(300, 3, 1, 1), range(300))
    task = Task("t", queries, gallery, same_place(queries, gallery))
    far = held[[0, 0, 0]]
    assert judge(task, far, held, "full").metrics["recall@1%"] == 0
    outcome = judge(task, far, held, "filtered")
    assert outcome.counts == {"queries": 3, "gallery": 3, "queries_without_positive": 0}
    assert outcome.metrics["recall@1%"] == 1
    assert outcome.metrics["recall@1"] == pytest.approx(1 / 3)


def test_semi_positives_stay_in_the_filtered_gallery(memory_images):
    images = memory_images(torch.arange(5).view(5, 1, 1, 1).expand(5, 3, 1, 1), range(5))
    queries = memory_images(torch.zeros(2, 3, 1, 1), [0, 1])
    positives = [np.array([4]), np.array([1])]
    task, rows = filtered(Task("t", queries, images, positives, [np.array([1]), np.array([2])]))
    assert rows.tolist() == [1, 2, 4]
    assert [own.tolist() for own in task.positives] == [[2], [0]]
    assert [own.tolist() for own in task.semi_positives] == [[0], [1]]
    assert task.gallery.name == ["0001.jpg", "0002.jpg", "0004.jpg"]
    assert task.gallery.position is None
    assert task.gallery.load([2, 0])[:, 0, 0, 0].tolist() == [4, 1]


def test_a_filter_that_leaves_nothing_is_an_error(memory_images):
    images = memory_images(torch.zeros(2, 3, 1, 1), range(2))
    nothing = [np.array([], np.int64)] * 2
    with pytest.raises(TrainingError, match="no gallery images"):
        judge(Task("t", images, images, nothing), *[np.eye(2, dtype=np.float32)] * 2, "filtered")
