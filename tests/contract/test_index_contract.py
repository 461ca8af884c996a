"""Every vector index gives the answers of brute force."""

import asyncio
import threading

import numpy as np
import pytest
from histories import DIM, STEPS, go_through, stored, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from service.geo import Circle
from service.ground.index.exact import FaissIndex
from service.ground.index.gpu import FaissGpuIndex
from service.ground.index.protocol import NO_ID
from service.ground.index.rows import Sizes
from service.ground.index.tiered import TieredIndex


class GpuShaped:
    """A flat CPU index with the manners of a GPU one: no deletes, no selectors, k to 2048, sums in another order."""

    def __init__(self, flat):
        self._flat = flat
        self._threads = set()

    def search(self, queries, k):
        assert k <= 2048
        self._threads.add(threading.get_ident())
        assert len(self._threads) == 1
        scores, positions = self._flat.search(queries, k)
        return scores + np.float32(1e-7) * (-1) ** positions, positions


def gpu_index(dim):
    """The GPU index's own logic; copies are made after every few changes, so the tests meet it in all states."""
    return FaissGpuIndex(dim, to_gpu=GpuShaped, rebuild_at=8)


def few_rows(dim):
    """Chunks that fill, rows that are sorted in and moved after every few writes."""
    return FaissIndex(dim, Sizes(first_chunk=8, last_chunk=32, sort_after=16, move_after=12))


INDEXES = [FaissIndex, few_rows, TieredIndex, gpu_index]

each_index = pytest.mark.parametrize("make_index", INDEXES)


def assert_same(found, expected):
    (scores, ids), (expected_scores, expected_ids) = found, expected
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=2e-7)


@each_index
@settings(max_examples=40)
@given(st.integers(0, 2**32), STEPS)
def test_random_histories_equal_brute_force(make_index, seed, steps):
    go_through(make_index(DIM), steps, seed, assert_same)


@each_index
def test_equal_vectors_come_in_order_of_id_whatever_the_batch(make_index):
    rng = np.random.default_rng(1)
    index, one = make_index(DIM), stored(rng, 1)
    ids = rng.permutation(3000)
    index.upsert(ids, np.repeat(one, 3000, axis=0), np.zeros((3000, 2)))
    for batch in (1, 3, 64):
        _, found = index.search(np.repeat(one, batch, axis=0), 7)
        assert found.tolist() == [list(range(7))] * batch


@each_index
@pytest.mark.parametrize("count", [1, 20_000])
def test_equal_vectors_cost_no_more_than_a_few(make_index, monkeypatch, count):
    """Sea and sand: however many vectors are the same, a bounded number of them is scored again, and the first win."""
    rng = np.random.default_rng(6)
    index, one, others = make_index(DIM), stored(rng, 1), stored(rng, 200)
    ids = rng.permutation(count) + 1000
    index.upsert(ids, np.repeat(one, count, axis=0), np.zeros((count, 2)))
    index.upsert(np.arange(200), others, np.zeros((200, 2)))
    scored, ranked = [], FaissIndex._ranked

    def counting(self, version, query, k, slots):
        scored.append(slots.size)
        return ranked(self, version, query, k, slots)

    monkeypatch.setattr(FaissIndex, "_ranked", counting)
    query = one + 0.7 * unit(rng, 1)
    query /= np.linalg.norm(query)
    lengths = np.linalg.norm(others.astype(float), axis=1)
    ahead = int((others @ query[0] / lengths > one[0] @ query[0] / np.linalg.norm(one.astype(float))).sum())
    _, found = index.search(query, 100 + ahead)
    same = [i for i in found[0].tolist() if i >= 1000]
    assert same == list(range(1000, 1000 + min(count, 100)))
    assert sum(scored) <= 6000


@each_index
async def test_counting_and_describing_wait_for_no_search(make_index, monkeypatch):
    """A search is held half way; the loop that counts and describes goes on ticking meanwhile."""
    rng, index = np.random.default_rng(7), make_index(DIM)
    index.upsert(np.arange(5), stored(rng, 5), np.zeros((5, 2)))
    searching, go_on, best, ticks = threading.Event(), threading.Event(), FaissIndex.best, [0]

    def held(self, *arguments):
        searching.set()
        go_on.wait(20)  # a loop that is stopped cannot let it go on
        ticks.append(ticks[0])
        return best(self, *arguments)

    async def ticking():
        while not go_on.is_set():
            ticks[0] += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(FaissIndex, "best", held)
    search = asyncio.create_task(asyncio.to_thread(index.search, unit(rng, 1), 1))
    while not searching.is_set():  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0)
    ticker = asyncio.create_task(ticking())
    for _ in range(3):
        counted = (index.count(), index.count(Circle(0, 0, 10)), index.describe()["size"])
        await asyncio.sleep(0)
    assert counted == (5, 5, 5)
    assert ticks[0] >= 3
    assert len(ticks) == 1  # the search was held all the time
    go_on.set()
    await search
    await ticker


@each_index
def test_an_empty_index_answers_with_padding(make_index):
    scores, ids = make_index(DIM).search(unit(np.random.default_rng(0), 2), 3)
    assert np.all(scores == -np.inf)
    assert np.all(ids == NO_ID)
    assert ids.shape == (2, 3)


@each_index
def test_an_update_moves_vector_and_place(make_index):
    rng = np.random.default_rng(2)
    index, (old, new) = make_index(DIM), stored(rng, 2)[:, None]
    index.upsert(np.array([5]), old, np.array([[10.0, 10.0]]))
    index.upsert(np.array([5]), new, np.array([[-10.0, 10.0]]))
    assert index.search(new, 1)[0] == pytest.approx(1, abs=1e-3)
    assert (index.count(), index.count(Circle(10, 10, 1000)), index.count(Circle(-10, 10, 1000))) == (1, 0, 1)


@each_index
def test_ids_are_not_positions(make_index):
    index, vectors = make_index(DIM), stored(np.random.default_rng(3), 2)
    index.upsert(np.array([2**40, 7]), vectors, np.zeros((2, 2)))
    assert index.search(vectors, 1)[1].tolist() == [[2**40], [7]]


@each_index
def test_searches_see_writes_whole_or_not_at_all(make_index):
    """While a writer goes round four states, a search finds one of the four and never a mix."""
    vectors, centres = stored(np.random.default_rng(4), 80), np.zeros((80, 2))
    index, base, extra = make_index(DIM), np.arange(50), np.arange(50, 80)
    index.upsert(base, vectors[base], centres[base])
    changes = [
        lambda: index.upsert(extra, vectors[extra], centres[extra]),
        lambda: index.upsert(base, -vectors[base], centres[base]),
        lambda: index.delete(extra),
        lambda: index.upsert(base, vectors[base], centres[base]),
    ]

    def answer():
        return tuple(index.search(vectors[:1], 80)[1][0].tolist())

    states = set()
    for change in changes:
        change()
        states.add(answer())
    assert len(states) == 4

    seen, done = set(), threading.Event()

    def search():
        while not done.is_set():
            seen.add(answer())

    readers = [threading.Thread(target=search) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(200):
        for change in changes:
            change()
    done.set()
    for reader in readers:
        reader.join()
    assert seen
    assert seen <= states


@each_index
def test_describes_itself(make_index):
    index = make_index(DIM)
    index.upsert(np.array([1]), stored(np.random.default_rng(5), 1), np.zeros((1, 2)))
    description = index.describe()
    assert description["size"] == 1
    assert description["dim"] == DIM
    assert {"kind", "device"} <= description.keys()
