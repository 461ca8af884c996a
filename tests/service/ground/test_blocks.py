import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.ground.blocks import Blocks, even, middle
from service.ground.windows import key_of, pack

CHANNELS, SIDE, ROWS = 3, 8, 6


@pytest.fixture
def ground_cells():
    """The descriptors of a level, as if one window covered it all: 6 by 6 windows."""
    size = (ROWS + 1) * SIDE // 2
    return np.random.default_rng(0).integers(-127, 128, (CHANNELS, size, size)).astype(np.int8)


@pytest.fixture
def stored(ground_cells):
    """The middle of every window."""
    return {
        key_of(5, 17, 100 + row, 200 + column): middle(
            ground_cells[:, row * 4 : row * 4 + SIDE, column * 4 : column * 4 + SIDE]
        )
        for row in range(ROWS)
        for column in range(ROWS)
    }


@pytest.fixture
def reads():
    return []


@pytest.fixture
def blocks(stored, reads):
    def read(keys):
        reads.append(keys)
        return {key: stored[key] for key in keys if key in stored}

    return Blocks(read)


def test_windows_are_put_together_as_if_each_had_been_stored(blocks, ground_cells):
    ids = pack(5, 17, np.array([101, 102]), np.array([202, 203]))
    one, two = blocks.windows(ids, (CHANNELS, SIDE, SIDE))
    np.testing.assert_array_equal(one, ground_cells[:, 4 : 4 + SIDE, 8 : 8 + SIDE])
    np.testing.assert_array_equal(two, ground_cells[:, 8 : 8 + SIDE, 12 : 12 + SIDE])


def test_any_rectangle_crosses_windows_freely(blocks, ground_cells):
    wanted = [(5, 17, 100 * 4 + 5, 200 * 4 + 7)]
    (cells,) = blocks.rectangles(wanted, (CHANNELS, 13, 11), (SIDE, SIDE))
    np.testing.assert_array_equal(cells, ground_cells[:, 5:18, 7:18])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(2, 18), st.integers(2, 18), st.integers(1, 8), st.integers(1, 8))
def test_a_rectangle_is_the_same_wherever_windows_end(blocks, ground_cells, top, left, height, width):
    (cells,) = blocks.rectangles([(5, 17, 400 + top, 800 + left)], (CHANNELS, height, width), (SIDE, SIDE))
    np.testing.assert_array_equal(cells, ground_cells[:, top : top + height, left : left + width])


def test_where_nothing_is_stored_there_are_zeros_or_nothing(blocks, ground_cells):
    corner, beyond = blocks.windows(pack(5, 17, np.array([100, 400]), np.array([200, 400])), (CHANNELS, SIDE, SIDE))
    assert beyond is None
    assert not corner[:, :2].any()
    assert not corner[:, :, :2].any()
    np.testing.assert_array_equal(corner[:, 2:, 2:], ground_cells[:, 2:SIDE, 2:SIDE])


def test_blocks_are_read_once_until_they_change(blocks, stored, reads):
    ids = pack(5, 17, np.array([102]), np.array([202]))
    before = blocks.windows(ids, (CHANNELS, SIDE, SIDE))[0]
    blocks.windows(ids, (CHANNELS, SIDE, SIDE))
    assert len(reads) == 1
    stored[int(ids[0])] = -stored[int(ids[0])]
    blocks.forget([int(ids[0])])
    after = blocks.windows(ids, (CHANNELS, SIDE, SIDE))[0]
    np.testing.assert_array_equal(after[:, 2:6, 2:6], -before[:, 2:6, 2:6])
    np.testing.assert_array_equal(after[:, :2], before[:, :2])
    stored.clear()
    blocks.forget_map(0, 2**63 - 1)
    assert blocks.windows(ids, (CHANNELS, SIDE, SIDE)) == [None]


def test_what_was_read_before_a_change_is_not_kept_after_it(stored):
    def read(keys):
        found = {key: stored[key] for key in keys if key in stored}
        if changes:
            stored[changes[0]] = np.full((CHANNELS, 4, 4), 9, np.int8)
            blocks.forget(changes)
            changes.clear()
        return found

    ids = pack(5, 17, np.array([102]), np.array([202]))
    changes = ids.tolist()
    blocks = Blocks(read)
    blocks.windows(ids, (CHANNELS, SIDE, SIDE))
    assert (blocks.windows(ids, (CHANNELS, SIDE, SIDE))[0][:, 2:6, 2:6] == 9).all()


def test_few_blocks_are_kept_at_hand(blocks, reads, monkeypatch, ground_cells):
    monkeypatch.setattr("service.ground.blocks.CACHED_BYTES", 5 * CHANNELS * 16)
    for row, column in [(1, 1), (3, 3), (1, 1)]:
        (cells,) = blocks.windows(pack(5, 17, np.array([100 + row]), np.array([200 + column])), (CHANNELS, SIDE, SIDE))
        np.testing.assert_array_equal(cells, ground_cells[:, row * 4 : row * 4 + 8, column * 4 : column * 4 + 8])
    assert len(reads) == 3


def test_odd_sides_are_doubled():
    assert even((64, 7, 14)) == (64, 14, 14)
    local = np.arange(2 * 7 * 7, dtype=np.int8).reshape(2, 7, 7)
    assert middle(local).shape == (2, 7, 7)
    assert middle(local)[0, 1, 1] == local[0, 2, 2]
