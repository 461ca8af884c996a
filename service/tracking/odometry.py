"""How far the ground point has moved between two overlapping photos, from their pixels.

Phase correlation (Kuglin, Hines, "The Phase Correlation Image Alignment Method", 1975) of two north-up views of known
ground size. It knows nothing of the map, so its errors have nothing to do with those of the fixes: together they tell a
movement from a change of error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.tracking.filter import Shift

SHARPEST = 0.15
"""Standard deviation of the frequencies that count, in cycles a pixel: finer detail is mostly noise."""

BAND_PX = (2.0, 6.0)
"""Detail of this size (difference of two Gaussian blurs) must agree: bright and dark quarters agree by chance."""

MIN_AGREEMENT = 0.16
"""Correlation of that detail where both views show the same ground. Measured on a flight over the demo town with a
heading that errs by 2° a photo: 90 % of right shifts lie above, 99.5 % of the shifts that are found between views of
different ground below."""

MIN_OVERLAP = 0.3
"""Share of the side, along each axis, that both views must show for their pixels to agree by more than chance."""

SAME_SCALE = 1.05
"""Ground sizes may differ by this ratio: a shift of half a view is then off by an eighth of a grain of tiles."""

SIGMA_SHARE, SIGMA_PX = 0.05, 1.0
"""Error of a shift: a twentieth of it, for a height above ground that is off by as much or a heading off by 3°, and a
pixel of the view."""

SWAY_SHARE = 0.04
"""What the ground point swings about its course, over the side of the view: 2° of pitch, as high up as that is wide."""


@dataclass(frozen=True, eq=False)
class NorthUpView:
    """What a photo showed: grey values uint8 ``[S, S]``, top to the north, ``side_m`` metres of ground along a side."""

    grey: NDArray[np.uint8]
    side_m: float

    @classmethod
    def of(cls, pixels: NDArray[np.uint8], side_m: float) -> NorthUpView:
        """From RGB, uint8 ``[S, S, 3]``."""
        return cls(pixels.mean(axis=2).astype(np.uint8), side_m)


def shift_between(before: NorthUpView, after: NorthUpView) -> Shift | None:
    """The movement of the view's centre, None where the two do not show enough of the same ground."""
    if before.grey.shape != after.grey.shape or not 1 / SAME_SCALE < before.side_m / after.side_m < SAME_SCALE:
        return None
    down_px, right_px = _content_shift_px(before.grey, after.grey)
    if _agreement(_detail(before.grey), _detail(after.grey), round(down_px), round(right_px)) < MIN_AGREEMENT:
        return None
    pixel_m = (before.side_m + after.side_m) / 2 / len(before.grey)
    east_m, north_m = -right_px * pixel_m, down_px * pixel_m  # a camera that flies north sees its ground go down
    sigma_m = math.hypot(SIGMA_SHARE * math.hypot(east_m, north_m), SIGMA_PX * pixel_m)
    return Shift(float(east_m), float(north_m), sigma_m, SWAY_SHARE * after.side_m)


def _content_shift_px(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> tuple[float, float]:
    """Rows and columns by which what ``before`` shows lies further down and right in ``after``."""
    side = len(before)
    axis = np.linspace(-1, 1, side)
    radius = np.minimum(1.0, np.hypot(axis[:, None], axis))
    window = (1 + np.cos(np.pi * radius)) / 2  # round: the corners of a turned photo are empty
    one, other = (np.fft.rfft2(window * (grey - grey.mean())) for grey in (before, after))
    cross = other * one.conj()
    square = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side) ** 2
    smooth = np.exp(-square / (2 * SHARPEST**2))
    peaks = np.fft.irfft2(smooth * cross / np.maximum(np.abs(cross), 1e-9), s=before.shape)
    row, column = np.unravel_index(np.argmax(peaks), peaks.shape)
    down = row + _vertex(peaks[row - 1, column], peaks[row, column], peaks[(row + 1) % side, column])
    right = column + _vertex(peaks[row, column - 1], peaks[row, column], peaks[row, (column + 1) % side])
    return (down + side / 2) % side - side / 2, (right + side / 2) % side - side / 2


def _vertex(left: float, middle: float, right: float) -> float:
    """Where a parabola through three neighbouring values is highest, from the middle one; the middle is the largest."""
    curvature = left - 2 * middle + right
    return 0.0 if curvature >= 0 else float(0.5 * (left - right) / curvature)


def _detail(grey: NDArray[np.uint8]) -> NDArray[np.float64]:
    image = Image.fromarray(grey)
    fine, coarse = (np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), float) for radius in BAND_PX)
    detail: NDArray[np.float64] = fine - coarse
    return detail


def _agreement(before: NDArray[np.float64], after: NDArray[np.float64], down: int, right: int) -> float:
    """Correlation (Pearson) of the pixels that both show, for a shift of the content."""
    side = len(before)
    if max(abs(down), abs(right)) > (1 - MIN_OVERLAP) * side:
        return 0.0
    first = before[max(0, -down) : side - max(0, down), max(0, -right) : side - max(0, right)]
    second = after[max(0, down) : side - max(0, -down), max(0, right) : side - max(0, -right)]
    first, second = first - first.mean(), second - second.mean()
    spread = math.sqrt(float((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / spread if spread > 0 else 0.0
