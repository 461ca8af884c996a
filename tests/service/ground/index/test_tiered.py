"""The tiers of the CPU's index: what codes find, when they are made, and what becomes of writes meanwhile."""

import threading
import time

import numpy as np
import pytest

from service.geo import Circle
from service.ground.index import tiered
from service.ground.index.codes import Coder
from service.ground.index.exact import FaissIndex
from service.ground.index.protocol import NO_ID
from service.ground.index.rows import Sizes
from service.ground.index.tiered import TieredIndex
from service.ground.vectors import unit

DIM = 32
LONG = 60  # seconds; no test waits that long
SMALL = Sizes(first_chunk=256, last_chunk=2048, sort_after=512, move_after=300)


def ground(seed, count):
    """Vectors in clusters, as windows of like ground are."""
    rng = np.random.default_rng(seed)
    kinds = np.random.default_rng(0).normal(size=(20, DIM))
    vectors = kinds[rng.integers(20, size=count)] + 0.8 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def photos(vectors, seed=9):
    """Queries with a cosine of 0.7 to these vectors."""
    rng, windows = np.random.default_rng(seed), unit(vectors)
    noise = rng.normal(size=windows.shape)
    noise -= (noise * windows).sum(1, keepdims=True) * windows
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return (0.7 * windows + np.sqrt(1 - 0.49) * noise).astype(np.float32)


@pytest.fixture
def index(monkeypatch):
    monkeypatch.setattr(tiered, "LEAST", 200)
    return TieredIndex(DIM, codes_from=3000, uncoded=500, settle_s=0.0, sizes=SMALL)


def fill(index, ids, vectors):
    index.upsert(np.asarray(ids), vectors, np.tile([50.0, 10.0], (len(vectors), 1)))


def settled(index):
    end = time.monotonic() + LONG
    while any(thread.name == "index-codes" for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.001)
    return index.describe()


def recall(index, exact, queries, k):
    _, found = index.search(queries, k)
    _, expected = exact.search(queries, k)
    return np.mean([np.isin(row, others).mean() for row, others in zip(expected, found, strict=True)])


def test_few_vectors_are_compared_one_and_all(index):
    fill(index, range(2999), ground(1, 2999))
    assert settled(index)["kind"] == "flat"


def test_many_vectors_are_found_by_codes_with_exact_scores(index):
    vectors, exact = ground(1, 8000), FaissIndex(DIM)
    fill(index, range(8000), vectors)
    fill(exact, range(8000), vectors)
    state = settled(index)
    assert (state["kind"], state["coded"], state["size"]) == ("codes", 8000, 8000)
    assert state["recall"] >= 0.99
    queries = photos(vectors[:64])
    assert recall(index, exact, queries, 10) >= 0.99
    scores, ids = index.search(queries, 10)
    wide = vectors[ids].astype(float)
    expected = np.einsum("nkd,nd->nk", wide, queries.astype(float)) / np.linalg.norm(wide, axis=2)
    np.testing.assert_allclose(scores, expected, atol=2e-7)
    assert np.all(np.diff(scores, axis=1) <= 0)


def test_what_was_written_last_is_found_and_what_was_deleted_is_not(index):
    rng, vectors = np.random.default_rng(3), ground(1, 12_000)
    exact = FaissIndex(DIM)
    for each in (index, exact):
        fill(each, range(6000), vectors[:6000])
    settled(index)
    stored = set(range(6000))
    for step in range(12):
        new = rng.choice(12_000, 150, replace=False)
        gone = rng.choice(sorted(stored), 100, replace=False)
        for each in (index, exact):
            fill(each, new, vectors[new])
            each.delete(gone)
        stored = (stored | set(new.tolist())) - set(gone.tolist())
        kept = np.setdiff1d(new, gone)
        found = index.search(unit(vectors[kept]), 1)[1][:, 0]
        assert np.array_equal(found, kept)
        assert index.count() == len(stored)
        assert not np.isin(index.search(unit(vectors[gone]), 50)[1], gone).any()
        assert recall(index, exact, photos(vectors[kept], step), 20) >= 0.98
    state = settled(index)
    assert state["size"] == len(stored)


def test_ground_that_was_deleted_hides_nothing(index):
    """All candidates that the codes give are gone: the rest is compared."""
    one, vectors = ground(5, 1), ground(1, 6000)
    fill(index, range(6000), vectors)
    fill(index, range(10_000, 10_290), np.repeat(one, 290, axis=0))
    settled(index)
    fill(index, [20_000], one)
    index.delete(np.arange(10_000, 10_290))
    assert index.search(unit(one), 1)[1].tolist() == [[20_000]]


def test_areas_stay_exact(index):
    vectors = ground(1, 6000)
    centres = np.column_stack([np.linspace(50, 51, 6000), np.full(6000, 10.0)])
    index.upsert(np.arange(6000), vectors, centres)
    assert settled(index)["kind"] == "codes"
    area, query = Circle(50.2, 10.0, 3000), photos(vectors[:1])
    inside = np.flatnonzero(area.contains(centres[:, 0], centres[:, 1]))
    scores = vectors[inside].astype(float) @ query[0] / np.linalg.norm(vectors[inside].astype(float), axis=1)
    assert index.count(area) == len(inside)
    assert index.search(query, 5, area)[1][0].tolist() == inside[np.argsort(-scores)[:5]].tolist()


def test_while_codes_are_made_everything_is_compared_and_nothing_is_lost(index, monkeypatch):
    coding, go_on, codes = threading.Event(), threading.Event(), Coder.codes

    def held(self, version):
        made = codes(self, version)
        coding.set()
        assert go_on.wait(LONG)
        return made

    monkeypatch.setattr(Coder, "codes", held)
    vectors = ground(1, 7000)
    fill(index, range(5000), vectors[:5000])
    assert coding.wait(LONG)
    fill(index, range(5000, 7000), vectors[5000:])
    assert index.describe()["kind"] == "flat"
    assert index.search(unit(vectors[6000:6001]), 1)[1].tolist() == [[6000]]
    go_on.set()
    assert settled(index) | {"kind": "codes", "coded": 7000} == index.describe()


def test_a_gallery_that_codes_do_not_suit_stays_exact(index, monkeypatch, caplog):
    monkeypatch.setattr(tiered, "CANDIDATES", (1,))
    noise = np.random.default_rng(2).normal(size=(5000, DIM))
    noise = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16)
    fill(index, range(5000), noise)
    assert settled(index)["kind"] == "flat"
    assert "codes find" in caplog.text
    fill(index, [5000], noise[:1])
    assert settled(index)["kind"] == "flat"  # and is not tried again at every write


def test_codes_that_cannot_be_made_leave_the_exact_index(index, monkeypatch, caplog):
    def no_memory(self, version):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Coder, "codes", no_memory)
        fill(index, range(5000), ground(1, 5000))
        assert settled(index)["kind"] == "flat"
    assert "no codes of the gallery could be made" in caplog.text
    fill(index, range(5000, 12_000), ground(2, 7000))
    assert settled(index)["kind"] == "codes"


def test_a_gallery_that_shrank_is_padded(index):
    fill(index, range(4000), ground(1, 4000))
    settled(index)
    index.delete(np.arange(3990))
    scores, ids = index.search(photos(ground(1, 1)), 20)
    assert set(ids[0].tolist()) == {NO_ID, *range(3990, 4000)}
    assert np.isneginf(scores[0, 10:]).all()


def test_a_vector_without_direction_is_refused_and_changes_nothing(index):
    fill(index, range(10), ground(1, 10))
    bad = ground(2, 2)
    bad[1] = 0
    with pytest.raises(ValueError, match="zero or not finite"):
        fill(index, [3, 50], bad)
    assert index.count() == 10
    assert index.search(unit(ground(1, 10)[3:4]), 1)[1].tolist() == [[3]]
