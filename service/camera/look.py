"""A look: the ground that a photo shows, laid flat under a hypothesis about its camera.

A look turns a photo into a square of level ground, as a map's window is one. For a camera that looks straight down it
is the photo's centre square; for one that looks aslant, the homography of that camera takes the slant out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.camera.pinhole import Complex, Floats, Pinhole, apply, inverted, similarity_matrix

FAR_HEIGHTS = 2.0
"""Ground further ahead than this many camera heights is left out: it is seen under less than 27°, where a metre of
height hides two of ground."""

MIN_HEIGHTS = 0.1
"""A square is never smaller than this many camera heights, whatever angles are stated."""

USUAL_HFOV_DEG = 70.0
"""A camera that says nothing is taken to have this field of view: drones' wide cameras have 65 to 84°. It only decides
how strongly the slant is taken out, so that 10° of error matter as little as a few degrees of pitch."""


@dataclass(frozen=True, eq=False)
class Look:
    """A square of ground as one hypothesis sees it.

    Attributes:
        to_photo: homography from the square (right + i·up in its sides, from its centre) to the photo, in widths.
        aspect: height over width of the photo.
        side_heights: side of the square over the camera's height above the ground; None when it is not of a camera.
    """

    to_photo: Floats
    aspect: float
    side_heights: float | None = None

    @property
    def from_photo(self) -> Floats:
        """Homography from the photo to the square."""
        return inverted(self.to_photo)

    def shown(self, points: Complex) -> NDArray[np.bool_]:
        """Tell which positions of the square the photo shows."""
        seen = apply(self.to_photo, points)
        inside: NDArray[np.bool_] = (np.abs(seen.real) <= 0.5) & (np.abs(seen.imag) <= 0.5 * self.aspect)
        return inside  # NaN, behind the camera, is not inside


def look_of(camera: Pinhole, *, north_up: bool, ground_side: float | None = None) -> Look:
    """Lay flat what a camera sees.

    Args:
        camera: the hypothesis.
        north_up: turn the square's top to the north; else it is where the camera looks.
        ground_side: largest side of the square in camera heights; None takes what the photo shows.
    """
    ahead = _ahead(camera)
    middle, side = _square_ahead(ahead)
    if ground_side is not None:
        side = min(side, ground_side)
    return _laid_flat(camera, side, middle) if north_up else _laid_flat(ahead, side, middle)


def square_of(camera: Pinhole, ground_side: float) -> Look:
    """Lay flat a square of just this side, in camera heights, north up, whether or not the photo fills it."""
    return _laid_flat(camera, ground_side, _square_ahead(_ahead(camera))[0])


def _ahead(camera: Pinhole) -> Pinhole:
    """The camera, turned to the north."""
    return Pinhole(camera.attitude.turned(-camera.attitude.heading_deg), camera.hfov_deg, camera.aspect)


def _laid_flat(camera: Pinhole, side: float, middle: float) -> Look:
    """The square of this side whose middle lies so far ahead."""
    turn = np.exp(-1j * math.radians(camera.attitude.heading_deg))  # clockwise
    square = similarity_matrix(complex(side), complex(1j * middle * turn))
    return Look(camera.to_photo @ square, camera.aspect, side)


def _square_ahead(camera: Pinhole) -> tuple[float, float]:
    """Middle and side, in heights, of the square that the photo of a camera with heading 0 fills best.

    As large as the photo is high and, at its middle, wide on the ground; around the photo's centre where there is a
    choice. The width of the ground grows with the depth along the camera's axis: ``2 · t · (y · cos p - sin p)``
    at y heights ahead, with t = tan(hfov / 2) and the pitch p, which is negative.
    """
    edge = 0.5j * camera.aspect
    near, centre, far = apply(camera.to_ground, np.array([-edge, 0j, edge])).imag.tolist()
    near = max(near, -FAR_HEIGHTS) if math.isfinite(near) else 0.0
    far = min(far, FAR_HEIGHTS) if math.isfinite(far) else FAR_HEIGHTS
    far = max(far, near + MIN_HEIGHTS)
    pitch, wide = math.radians(camera.attitude.pitch_deg), math.tan(math.radians(camera.hfov_deg) / 2)

    def width(ahead: float) -> float:
        return max(MIN_HEIGHTS, 2 * wide * (ahead * math.cos(pitch) - math.sin(pitch)))

    middle = min(centre if math.isfinite(centre) else far, (near + far) / 2)
    side = min(far - near, width(middle))
    middle = min(max(middle, near + side / 2), far - side / 2)
    return middle, min(side, width(middle))
