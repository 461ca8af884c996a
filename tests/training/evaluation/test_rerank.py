import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st

from training.batch import Features
from training.data.base import Task, same_place
from training.errors import TrainingError
from training.evaluation.embed import TorchEmbedder
from training.evaluation.evaluate import evaluate
from training.evaluation.rerank import LOOKED_AT, reranked
from training.evaluation.search import search
from training.methods.unifygeo import collapse
from training.models.encoder import Encoder


def features(images):
    """The pixels are the descriptors."""
    return Features(torch.zeros(len(images), 2), local=F.normalize(images.double(), dim=1))


def noise_task(seed, memory_images):
    rng = np.random.default_rng(seed)
    q, g = int(rng.integers(1, 9)), int(rng.integers(1, 14))
    dice = torch.Generator().manual_seed(seed)
    queries = memory_images(torch.randn(q, 3, 2, 2, generator=dice), rng.integers(0, 6, q))
    gallery = memory_images(torch.randn(g, 3, 2, 2, generator=dice), rng.integers(0, 6, g))
    return rng, Task("t", queries, gallery, same_place(queries, gallery))


@given(seed=st.integers(0, 2**31 - 1))
def test_the_first_answers_are_ordered_by_both_scores(seed, memory_images, unit_vectors):
    rng, task = noise_task(seed, memory_images)
    ranking = search(unit_vectors(rng, len(task.queries)), unit_vectors(rng, len(task.gallery)), task.positives)
    again = reranked(ranking, task, features, batch=3)
    photos, tiles = collapse(features(task.queries.images).local), features(task.gallery.images).local
    for i, old in enumerate(ranking.top):
        depth = min(LOOKED_AT, len(old))
        fits = [max(float(photos[i] @ tiles[k, :, r, c]) for r in range(2) for c in range(2)) for k in old[:depth]]
        scores = [-(float(ranking.top_score[i, n]) + fits[n]) for n in range(depth)]
        order = sorted(range(depth), key=lambda n: scores[n])
        assert again.top[i].tolist() == [*(int(old[n]) for n in order), *old[depth:].tolist()]
        shown = [rank for rank, row in enumerate(again.top[i]) if row in task.positives[i]]
        assert [rank for rank in again.ranks[i] if rank < len(old)] == shown
        assert len(again.ranks[i]) == len(task.positives[i])


@given(seed=st.integers(0, 2**31 - 1))
def test_the_hit_rate_follows_the_new_order(seed, memory_images, unit_vectors):
    """By the definition: nothing wrong scores higher than the best positive; what was looked at comes first."""
    rng, task = noise_task(seed, memory_images)
    own = [set(rows.tolist()) for rows in task.positives]
    semis = [np.flatnonzero(rng.random(len(task.gallery)) < 0.3) for _ in own]
    task = Task(
        "t",
        task.queries,
        task.gallery,
        task.positives,
        [s[~np.isin(s, p)] for s, p in zip(semis, task.positives, strict=True)],
    )
    asked, held = unit_vectors(rng, len(task.queries)), unit_vectors(rng, len(task.gallery))
    again = reranked(search(asked, held, task.positives, task.semi_positives), task, features, batch=3)
    photos, tiles = collapse(features(task.queries.images).local), features(task.gallery.images).local
    for i, right in enumerate(own):
        cosine = [float(asked[i] @ row) for row in held]
        order = sorted(range(len(held)), key=lambda row: (-cosine[row], row in right, row))
        score = {}
        for rank, row in enumerate(order):
            fit = max(float(photos[i] @ tiles[row, :, r, c]) for r in range(2) for c in range(2))
            score[row] = (rank < LOOKED_AT, cosine[row] + fit if rank < LOOKED_AT else cosine[row])
        wrong = set(order) - right - set(task.semi_positives[i].tolist())
        # a wrong image that was looked at, and scored what the best positive of the rest did, did not score higher
        first = {row: cosine[row] for row in order} if right.isdisjoint(order[:LOOKED_AT]) else score
        expected = bool(right) and all(first[row] <= max(first[r] for r in right) for row in wrong)
        assert again.hit[i] == expected
    assert again.hit.mean() >= (again.first == 0).mean()


def test_recall_at_five_cannot_change(memory_images, unit_vectors):
    rng, task = noise_task(11, memory_images)
    ranking = search(unit_vectors(rng, len(task.queries)), unit_vectors(rng, len(task.gallery)), task.positives)
    again = reranked(ranking, task, features)
    assert ((again.first < LOOKED_AT) == (ranking.first < LOOKED_AT)).all()


@pytest.fixture
def embedder(tiny_config):
    def make(local_dim):
        config = tiny_config(model={"local_dim": local_dim, "local_stride": 16})
        torch.manual_seed(0)
        return TorchEmbedder(Encoder(config.model).eval(), "tiny", 64, "squash")

    return make


@pytest.fixture
def pictures(memory_images):
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    queries, gallery = memory_images(images, range(6)), memory_images(images.clone(), range(6))
    return [Task("t", queries, gallery, same_place(queries, gallery))]


def test_evaluate_looks_again(embedder, pictures):
    result = evaluate(embedder(8), pictures, dataset="noise", rerank=True, gallery="full", quiet=True)
    assert result["rerank"] is True
    assert 0 <= result["tasks"]["t"]["full"]["metrics"]["recall@1"] <= 1


@pytest.mark.parametrize(("local_dim", "flip", "message"), [(None, False, "model.local_dim=64"), (8, True, "--flip")])
def test_what_cannot_be_reranked_names_the_fix(embedder, pictures, local_dim, flip, message):
    with pytest.raises(TrainingError, match=message):
        evaluate(embedder(local_dim), pictures, dataset="noise", rerank=True, flip=flip, quiet=True)
    assert not pictures[0].queries.loaded  # it is said before hours of embedding
