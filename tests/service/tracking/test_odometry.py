import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.tracking.odometry import NorthUpView, shift_between

SIDE_PX, SIDE_M = 192, 86.0


@pytest.fixture(scope="module")
def land():
    """A made-up map of 640 × 640 pixels with detail of several sizes, one for each seed."""

    def make(seed):
        rng = np.random.default_rng(seed)
        total = np.zeros((640, 640))
        for size in (60, 120, 240):
            noise = Image.fromarray(rng.normal(size=(size, size)).astype(np.float32))
            total += np.asarray(noise.resize((640, 640), Image.Resampling.BICUBIC))
        return np.clip(128 + 35 * total, 0, 255).astype(np.uint8)

    return make


def view(land, row, column, side_m=SIDE_M, noise=0.0, seed=0):
    cut = land[row : row + SIDE_PX, column : column + SIDE_PX].astype(float)
    cut = cut * 0.9 + 10 + np.random.default_rng(seed).normal(0, noise, cut.shape) if noise else cut
    return NorthUpView(np.clip(cut, 0, 255).astype(np.uint8), side_m)


@settings(deadline=None, max_examples=40)
@given(st.integers(-55, 55), st.integers(-55, 55))
def test_a_movement_is_found_in_metres_east_and_north(land, down, right):
    """The later view is cut further south and east; brighter, and with noise."""
    ground = land(0)
    shift = shift_between(view(ground, 150, 150), view(ground, 150 + down, 150 + right, noise=6.0))
    assert shift is not None
    pixel_m = SIDE_M / SIDE_PX
    assert (shift.east_m, shift.north_m) == pytest.approx((right * pixel_m, -down * pixel_m), abs=0.6 * pixel_m)
    assert shift.sigma_m >= pixel_m
    assert shift.sway_m > 0


@pytest.mark.parametrize("seed", range(1, 25))
def test_another_place_is_no_movement(land, seed):
    assert shift_between(view(land(0), 150, 150), view(land(seed), 150, 150)) is None


def test_blank_photos_are_no_movement(land):
    blank = NorthUpView(np.full((SIDE_PX, SIDE_PX), 120, np.uint8), SIDE_M)
    assert shift_between(blank, blank) is None
    assert shift_between(view(land(0), 9, 9), blank) is None
    assert shift_between(blank, view(land(0), 9, 9)) is None


def test_views_of_other_sizes_are_not_compared(land):
    ground = land(0)
    assert shift_between(view(ground, 9, 9), view(ground, 9, 9, side_m=95.0)) is None
    assert shift_between(view(ground, 9, 9), view(ground, 9, 9, side_m=88.0)) is not None
    assert shift_between(NorthUpView(ground[:32, :32], SIDE_M), view(ground, 9, 9)) is None


def test_grey_is_the_mean_of_the_channels():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 30, 60
    np.testing.assert_array_equal(NorthUpView.of(pixels, 1.0).grey, np.full((4, 4), 30))
