import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.ground.local_maps import pack, to_int8, unpack

SHAPES = st.tuples(st.integers(1, 96), st.integers(1, 9), st.integers(1, 9))


def unit(shape, seed):
    values = np.random.default_rng(seed).normal(size=shape)
    return (values / np.linalg.norm(values, axis=0)).astype(np.float32)


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_eight_bits_are_off_by_a_254th_and_cosines_by_as_much_as_said(shape, seed):
    local, other = unit(shape, seed), unit(shape, seed + 1)
    kept = to_int8(local)
    assert kept.dtype == np.int8
    assert np.abs(kept / 127.0 - local).max() <= 1 / 254 + 1e-6
    cosines, exact = ((values * other).sum(axis=0) for values in (kept / 127.0, local))
    assert np.abs(cosines - exact).max() <= np.sqrt(shape[0]) / 254 + 1e-6


def test_what_rounding_put_beyond_one_does_not_wrap():
    np.testing.assert_array_equal(to_int8(np.array([[[1.0000001, -1.001, 0.0]]], np.float32)), [[[127, -127, 0]]])


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_packed_and_unpacked(shape, seed):
    local = to_int8(unit(shape, seed))
    data = pack(local)
    assert len(data) == 6 + local.size
    np.testing.assert_array_equal(unpack(data), local)


@pytest.mark.parametrize("change", [lambda data: data[:5], lambda data: data[:-1], lambda data: data + b"\0"])
def test_other_lengths_are_refused(change):
    with pytest.raises(ValueError, match=r"cut off|cannot reshape"):
        unpack(change(pack(np.zeros((4, 3, 2), np.int8))))
