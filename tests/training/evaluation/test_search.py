import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import TrainingError
from training.evaluation.search import FEWEST_QUERIES, exact_scores, search


def gaussian(rng, n, dim=48):
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def assert_same(a, b):
    np.testing.assert_array_equal(np.concatenate(a.ranks), np.concatenate(b.ranks))
    for name in ("top", "top_score", "truth", "truth_score", "hit"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@given(seed=st.integers(0, 2**32 - 1))
def test_ranks_and_best_rows_are_those_of_the_definition(seed, random_case, slow):
    queries, gallery, positives, _ = random_case(seed)
    ranking = search(queries, gallery, positives, top=7)
    assert ranking.hit is None
    for i, own in enumerate(positives):
        order, scores = slow.order(queries[i], gallery, set(own.tolist()))
        assert ranking.top[i].tolist() == order[:7]
        assert ranking.top_score[i].tolist() == [scores[row] for row in order[:7]]
        assert ranking.ranks[i].tolist() == [rank for rank, row in enumerate(order) if row in own]
        if len(own):
            assert ranking.truth_score[i] == max(scores[row] for row in own) == scores[ranking.truth[i]]
            assert ranking.truth[i] in own
        else:
            assert ranking.truth[i] == -1
            assert np.isnan(ranking.truth_score[i])


@given(seed=st.integers(0, 2**32 - 1), chunk_bytes=st.integers(1, 40_000))
def test_chunks_change_nothing(seed, chunk_bytes, random_case):
    queries, gallery, positives, semis = random_case(seed)
    whole = search(queries, gallery, positives, semis, top=5)
    assert_same(whole, search(queries, gallery, positives, semis, top=5, chunk_bytes=chunk_bytes))


def test_chunks_change_no_bit_of_a_score():
    rng = np.random.default_rng(0)
    queries, gallery = gaussian(rng, 3 * FEWEST_QUERIES + 1), gaussian(rng, 5000)
    positives = [rng.choice(5000, 6, replace=False) for _ in queries]
    semis = [rng.choice(5000, 3, replace=False) for _ in queries]
    whole = search(queries, gallery, positives, semis)
    assert_same(whole, search(queries, gallery, positives, semis, chunk_bytes=1))


def test_scores_do_not_depend_on_the_order_of_the_sum():
    rng = np.random.default_rng(1)
    queries, gallery = gaussian(rng, 20), gaussian(rng, 300)
    order = rng.permutation(queries.shape[1])
    scores = exact_scores(queries, gallery)
    np.testing.assert_array_equal(scores, exact_scores(queries[:, order], gallery[:, order]))
    np.testing.assert_allclose(scores, queries.astype(np.float64) @ gallery.T.astype(np.float64), atol=1e-7)


def test_copies_of_an_image_tie_wherever_they_stand():
    rng = np.random.default_rng(2)
    gallery = gaussian(rng, 999)
    gallery[[17, 500, 998]] = gallery[3]
    ranking = search(gallery[[3]], gallery, [np.array([17])], top=4)
    assert ranking.ranks[0].tolist() == [3]  # three wrong copies come before the right one
    assert ranking.top[0].tolist() == [3, 500, 998, 17]


def test_a_model_that_says_always_the_same_is_never_right():
    same = np.tile(np.array([[0.6, 0.8]], np.float32), (50, 1))
    ranking = search(same, same, [np.array([i]) for i in range(50)])
    assert (ranking.first == 49).all()


def test_hit_ignores_semi_positives_and_takes_ties():
    gallery = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0.8, -0.6]], np.float32)
    query = np.array([[1, 0]], np.float32)

    def hit(positive, semis):
        return bool(search(query, gallery, [np.array([positive])], [np.array(semis, np.int64)]).hit[0])

    assert hit(0, [])
    assert hit(1, [0])  # row 3 ties
    assert not hit(1, [])
    assert not hit(2, [0, 1])
    assert hit(2, [0, 1, 3])
    assert not search(query, gallery, [np.array([], np.int64)], [np.array([0])]).hit[0]  # nothing to hit


@pytest.mark.parametrize("same", [False, True])
def test_memory_stays_bounded(same):
    """A matrix of 4,000 × 4,000 scores would take 128 MB; a collapsed model, all ties, is the worst case."""
    rng = np.random.default_rng(3)
    embeddings = gaussian(rng, 4000, dim=16)
    if same:
        embeddings[:] = embeddings[0]
    positives = [np.array([i]) for i in range(4000)]
    chunk_bytes = 2 << 20
    tracemalloc.start()
    try:
        search(embeddings, embeddings, positives, chunk_bytes=chunk_bytes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (12 if same else 5) * chunk_bytes


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38, 0.0, 2.0])
def test_broken_embeddings_are_refused(bad):
    good = np.eye(3, dtype=np.float32)
    broken = good.copy()
    broken[1, 1] = bad
    with pytest.raises(TrainingError, match="Embedding 1 of the queries"):
        search(broken, good, [np.array([0])] * 3)
    with pytest.raises(TrainingError, match="Embedding 1 of the gallery"):
        search(good, broken, [np.array([0])] * 3)


def test_nothing_to_search_is_refused():
    with pytest.raises(TrainingError, match="no gallery images"):
        search(np.eye(3, dtype=np.float32), np.empty((0, 3), np.float32), [np.array([], np.int64)] * 3)
