"""Photo → the square that is compared with the map, as a look lays it flat."""

import math

import numpy as np
from PIL import Image, ImageStat

from service.camera.look import Look
from service.camera.pinhole import Floats, apply

MIN_SIDE_PX, MAX_SIDE_PX = 16, 448
"""Squares are drawn with sides between these: twice the model's input, to which they are shrunk. More cost as much as
all that a descriptor network does with them."""


def make_view(image: Image.Image, look: Look) -> Image.Image:
    """Draw the square of a look.

    It has about as many pixels as the photo has where it shows the square best. Where the photo ends, the square gets
    the photo's mean colour, which disturbs an embedding least.

    Args:
        image: the photo, of any size.
        look: how it is laid flat.

    Returns:
        A square RGB image.
    """
    to_pixels = _to_pixels(look.to_photo, image)
    upright = np.allclose(to_pixels[[0, 1, 2, 2], [1, 0, 0, 1]], 0.0, atol=1e-9) and to_pixels[0, 0] > 0
    if upright:  # straight down, as it is: no pixel has to be drawn anew
        scale, left, top = to_pixels[0, 0] / to_pixels[2, 2], *_first(to_pixels)
        side_px = max(1, round(scale))
        left, top = round(left), round(top)
        return image.crop((left, top, left + side_px, top + side_px))
    longest_px = _longest_px(to_pixels)
    if longest_px >= 2 * MAX_SIDE_PX:  # bilinear sampling sees one pixel of two at the most
        image = image.reduce(int(longest_px // MAX_SIDE_PX))
        to_pixels = _to_pixels(look.to_photo, image)
    side_px = max(MIN_SIDE_PX, min(MAX_SIDE_PX, math.ceil(longest_px - 1e-6)))
    mean = tuple(round(channel) for channel in ImageStat.Stat(image.reduce(max(1, min(image.size) // 64))).mean)
    drawn = to_pixels @ np.diag([1 / side_px, 1 / side_px, 1.0])
    return image.transform(
        (side_px, side_px),
        Image.Transform.PERSPECTIVE,
        tuple((drawn / drawn[2, 2]).ravel()[:8]),
        Image.Resampling.BILINEAR,  # enough: the square is shrunk to the model's input with antialiasing
        fillcolor=mean,
    )


def shrunk(image: Image.Image, most_px: int) -> Image.Image:
    """Return the image, or a smaller copy whose shorter side has at least ``most_px``, by a whole number."""
    factor = min(image.size) // most_px
    return image if factor < 2 else image.reduce(factor)


def _to_pixels(to_photo: Floats, image: Image.Image) -> Floats:
    """From the square, (right, down) from its top left in sides, to the image's pixels."""
    sides = np.array([[1.0, 0.0, -0.5], [0.0, -1.0, 0.5], [0.0, 0.0, 1.0]])
    width, height = image.size
    pixels = np.array([[width, 0.0, width / 2], [0.0, -width, height / 2], [0.0, 0.0, 1.0]])
    matrix: Floats = pixels @ to_photo @ sides
    return matrix


def _first(to_pixels: Floats) -> tuple[float, float]:
    """Where the square's top left lies."""
    x, y, scale = to_pixels[:, 2]
    return float(x / scale), float(y / scale)


def _longest_px(to_pixels: Floats) -> float:
    """Pixels of the image along the square's longest edge; many where a corner lies beyond the horizon."""
    corners = apply(to_pixels, np.array([0, 1, 1 + 1j, 1j]))
    if not np.isfinite(corners).all():
        return 2.0 * MAX_SIDE_PX - 1
    return float(np.abs(np.roll(corners, -1) - corners).max())
