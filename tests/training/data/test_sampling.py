import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import sampling
from training.data.sampling import SamplingConfig, epoch_batches, gps_neighbours, shard, similarity_neighbours
from training.errors import TrainingError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def places(*counts):
    """``places(3, 1)``: three pairs of place 0, one of place 1."""
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


# --- batches at random ---------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=4, max_size=30), st.integers(1, 4), st.integers(0, 9))
def test_a_place_once_in_a_batch_and_a_pair_once_in_an_epoch(counts, batch_pairs, seed):
    place = places(*counts)
    batches = epoch_batches(place, batch_pairs, generator(seed))
    used = [pair for batch in batches for pair in batch]
    assert len(used) == len(set(used))
    for batch in batches:
        assert len(batch) == batch_pairs == len({place[pair] for pair in batch})
    left = set(range(len(place))) - set(used)
    assert len({place[pair] for pair in left}) < batch_pairs  # or they would have made another batch


def test_all_pairs_are_used_when_they_fit():
    place = places(*[3] * 40)
    batches = epoch_batches(place, 8, generator())
    assert len(batches) >= 14  # of 15; the last places may hold several pairs each
    assert len({pair for batch in batches for pair in batch}) == 8 * len(batches)


def test_one_pair_a_place_leaves_out_only_the_unfinished_batch():
    batches = epoch_batches(places(*[1] * 43), 8, generator())
    assert len(batches) == 5
    assert len({pair for batch in batches for pair in batch}) == 40


def test_an_epoch_of_university_1652_has_the_published_length():
    """37,854 pairs of 701 buildings in batches of 128: Sample4Geo's run has 295 steps over 37,760 pairs."""
    assert len(epoch_batches(places(*[54] * 701), 128, generator())) == 295


def test_the_same_state_gives_the_same_batches():
    place = places(*[2] * 30)
    assert epoch_batches(place, 7, generator(1)) == epoch_batches(place, 7, generator(1))
    assert epoch_batches(place, 7, generator(1)) != epoch_batches(place, 7, generator(2))


def test_a_place_with_many_pairs_does_not_hold_up_the_end():
    """1,000 pairs of place 0: each batch can take one, and the rest is given up."""
    place = places(1000, *[1] * 9)
    batches = epoch_batches(place, 5, generator())
    assert 1 <= len(batches) <= 2
    assert all(sum(place[pair] == 0 for pair in batch) <= 1 for batch in batches)


def test_an_epoch_ends_after_clashes_in_a_row_but_not_without_a_batch(monkeypatch):
    """1,000 pairs of place 0 stand in the way of three batches; with less patience only the first is made."""
    place = places(1000, *[3] * 4)
    assert len(epoch_batches(place, 5, generator())) == 3
    monkeypatch.setattr(sampling, "GIVE_UP", 3)
    assert len(epoch_batches(place, 5, generator())) == 1


@pytest.mark.parametrize(
    ("counts", "message"),
    [((50,), "there are 1: give at least two"), ((3, 3, 3), "there are 3 places: set optim.batch_pairs to 3")],
)
def test_too_few_places_name_the_fix(counts, message):
    with pytest.raises(TrainingError, match=message):
        epoch_batches(places(*counts), 4, generator())


# --- places that overlap -------------------------------------------------------------------------------------------


def test_photos_and_tiles_of_a_batch_do_not_overlap():
    """Places in a row; each photo shows the two next to its own."""
    place = places(*[2] * 24)
    also_shows = [np.array([p for p in (own - 1, own + 1) if 0 <= p < 24], np.int64) for own in place]
    batches = epoch_batches(place, 4, generator(), also_shows=also_shows)
    assert len(batches) >= 8
    for batch in batches:
        own = sorted(place[pair] for pair in batch)
        assert np.diff(own).min() > 1


def test_overlap_counts_in_both_directions():
    """Pair 0 shows place 1, while pair 1 shows place 1 alone: they may not meet, whoever comes first."""
    place, also_shows = places(1, 1, 1), [np.array([1]), np.array([], np.int64), np.array([], np.int64)]
    for seed in range(10):
        for batch in epoch_batches(place, 2, generator(seed), also_shows=also_shows):
            assert set(batch) != {0, 1}


def test_places_that_all_overlap_make_no_batch():
    place = places(1, 1, 1)
    also_shows = [np.array([p for p in range(3) if p != own]) for own in range(3)]
    with pytest.raises(TrainingError, match="their places overlap"):
        epoch_batches(place, 2, generator(), also_shows=also_shows)


# --- batches of neighbours -----------------------------------------------------------------------------------------


def ring(count, k):
    """Neighbours on a circle, the nearest first."""
    steps = [s for i in range(1, k) for s in (i, -i)][:k]
    return np.array([[(p + s) % count for s in steps] for p in range(count)])


@pytest.mark.parametrize("as_tensor", [False, True])
def test_neighbours_join_a_drawn_pair(as_tensor):
    neighbours = ring(60, 8)
    batches = epoch_batches(
        places(*[1] * 60),
        6,
        generator(),
        sampling=SamplingConfig(quota=8, nearest_share=1.0),
        neighbours=torch.from_numpy(neighbours) if as_tensor else neighbours,
    )
    first = batches[0]  # nothing is used yet: the drawn pair and its five nearest
    assert first[1:] == neighbours[first[0]][:5].tolist()
    together = np.mean([min((a - b) % 60, (b - a) % 60) <= 8 for batch in batches for a in batch for b in batch])
    apart = np.mean(
        [
            min((a - b) % 60, (b - a) % 60) <= 8
            for batch in epoch_batches(places(*[1] * 60), 6, generator())
            for a in batch
            for b in batch
        ]
    )
    assert together > 0.7 > 0.5 > apart


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 5), min_size=6, max_size=20),
    st.integers(2, 5),
    st.integers(0, 5),
    st.integers(1, 12),
    st.floats(0, 1),
)
def test_batches_of_neighbours_are_as_unique(counts, batch_pairs, seed, quota, share):
    place = places(*counts)
    batches = epoch_batches(
        place,
        batch_pairs,
        generator(seed),
        sampling=SamplingConfig(quota=quota, nearest_share=share),
        neighbours=ring(len(counts), 5),
    )
    used = [pair for batch in batches for pair in batch]
    assert len(used) == len(set(used))
    assert all(len({place[pair] for pair in batch}) == batch_pairs for batch in batches)


def test_half_of_the_quota_is_the_very_nearest():
    near = np.arange(100, 228)
    for seed in range(5):
        chosen = sampling._chosen(near, SamplingConfig(), generator(seed))
        assert chosen[:32] == near[:32].tolist()
        assert len(set(chosen)) == 64
        assert set(chosen[32:]) <= set(near[32:].tolist())
    assert sampling._chosen(near, SamplingConfig(), generator(1)) != sampling._chosen(
        near, SamplingConfig(), generator(2)
    )


def test_few_neighbours_are_all_taken():
    near = np.arange(10)
    assert sorted(sampling._chosen(near, SamplingConfig(), generator())) == near.tolist()
    assert sampling._chosen(near, SamplingConfig(quota=3, nearest_share=1.0), generator()) == [0, 1, 2]


# --- shards --------------------------------------------------------------------------------------------------------


def test_shards_are_the_batch():
    batch = list(range(12))
    assert [i for rank in range(3) for i in shard(batch, rank, 3)] == batch
    assert shard(batch, 0, 1) == batch


def test_uneven_shards_name_the_setting():
    with pytest.raises(TrainingError, match=r"optim\.batch_pairs=10 cannot be shared by 4"):
        shard(list(range(10)), 0, 4)


# --- neighbours ----------------------------------------------------------------------------------------------------


def haversine_m(a, b):
    (lat1, lon1), (lat2, lon2) = (tuple(math.radians(v) for v in p) for p in (a, b))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6_371_008.8 * math.asin(math.sqrt(h))


@pytest.mark.parametrize("cells", [2**22, 64])
@pytest.mark.parametrize(
    ("south", "north", "west", "east"), [(-90, 90, -180, 180), (40.7, 40.701, -74, -73.999), (-89.99, -89.9, 0, 360)]
)
def test_gps_neighbours_are_the_nearest(monkeypatch, cells, south, north, west, east):
    monkeypatch.setattr(sampling, "CHUNK_CELLS", cells)
    rng = np.random.default_rng(0)
    position = np.stack((rng.uniform(south, north, 30), rng.uniform(west, east, 30)), axis=1)
    found = gps_neighbours(position, 6)
    for i, row in enumerate(found):
        order = sorted((j for j in range(30) if j != i), key=lambda j: haversine_m(position[i], position[j]))
        assert row.tolist() == order[:6]


def test_neighbours_across_the_antimeridian():
    position = np.array([[0.0, 179.999], [0.0, -179.999], [0.0, 179.9], [0.0, 0.0]])
    assert gps_neighbours(position, 2)[:2].tolist() == [[1, 2], [0, 2]]


def test_millimetres_are_told_apart():
    position = np.array([[40.0, -74.0], [40.0 + 2e-8, -74.0], [40.0, -74.0 + 1e-8], [40.0 + 4e-8, -74.0]])
    assert gps_neighbours(position, 3)[0].tolist() == [2, 1, 3]


@pytest.mark.parametrize("cells", [2**22, 100, 1])
def test_similarity_neighbours_are_the_most_alike(monkeypatch, cells):
    monkeypatch.setattr(sampling, "CHUNK_CELLS", cells)
    rng = np.random.default_rng(1)
    query, reference = rng.normal(size=(2, 40, 8)).astype(np.float32)
    found = similarity_neighbours(query, reference, 7)
    for i, row in enumerate(found):
        order = sorted((j for j in range(40) if j != i), key=lambda j: -float(query[i] @ reference[j]))
        assert row.tolist() == order[:7]


def test_neighbours_never_name_the_place_itself():
    vectors = np.eye(5, dtype=np.float32)
    found = similarity_neighbours(vectors, vectors, 99)
    assert found.shape == (5, 4)
    assert all(i not in row for i, row in enumerate(found))
    same_spot = gps_neighbours(np.zeros((5, 2)), 99)
    assert all(sorted(row) == [j for j in range(5) if j != i] for i, row in enumerate(same_spot))
