"""A camera without distortion over level ground.

A photo's positions are complex numbers, right + i·up in photo *widths* from its centre; places on the ground are
east + i·north, from the point below the camera, in camera *heights*. Between the two lies one homography (Hartley and
Zisserman 2004, section 8.1): height and place of the camera scale and shift it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.camera.attitude import Attitude

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]


def apply(matrix: Floats, points: Complex) -> Complex:
    """Map positions by a homography ``[3, 3]`` over (right, up, 1); what it maps to infinity or behind it becomes NaN.

    A position whose third coordinate is not positive lies on the other side of the horizon.
    """
    right, up, scale = matrix @ np.stack([points.real, points.imag, np.ones(points.shape)])
    before = scale > 1e-9
    mapped: Complex = np.full(points.shape, complex(np.nan, np.nan))
    mapped[before] = (right[before] + 1j * up[before]) / scale[before]
    return mapped


def inverted(matrix: Floats) -> Floats:
    """Return the inverse of a homography, positive where the centre of what it maps from is mapped to."""
    inverse = np.asarray(np.linalg.inv(matrix), np.float64)
    centre = matrix[:, 2]
    return inverse if (inverse @ centre)[2] * np.sign(centre[2]) > 0 else -inverse


def similarity_matrix(a: complex, b: complex) -> Floats:
    """Return the homography ``[3, 3]`` of ``z → a·z + b``."""
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera of known attitude and field of view.

    Attributes:
        attitude: how it is turned.
        hfov_deg: angle that the photo's width covers.
        aspect: height over width of the photo.
    """

    attitude: Attitude
    hfov_deg: float
    aspect: float

    @property
    def focal_widths(self) -> float:
        """Focal length in photo widths: ``1 / (2 · tan(hfov / 2))``."""
        return 0.5 / math.tan(math.radians(self.hfov_deg) / 2)

    @cached_property
    def to_ground(self) -> Floats:
        """Homography from the photo to the ground, its third row positive for what lies below the horizon."""
        right, down, forward = self.attitude.matrix.T
        rays = np.stack([right, -down, self.focal_widths * forward], axis=1)
        falling: Floats = rays * np.array([[1.0], [1.0], [-1.0]])
        return falling

    @cached_property
    def to_photo(self) -> Floats:
        """The inverse; its third row is positive for ground before the camera."""
        return np.asarray(np.linalg.inv(self.to_ground), np.float64)

    @property
    def corners(self) -> Complex:
        """The photo's corners, clockwise from its top left."""
        return corners(self.aspect)


def corners(aspect: float) -> Complex:
    """Return corners of a photo in widths, clockwise from its top left, for a height over width of ``aspect``."""
    return np.array([-0.5 + 0.5j * aspect, 0.5 + 0.5j * aspect, 0.5 - 0.5j * aspect, -0.5 - 0.5j * aspect])
