"""What is known of a camera before its photo is looked at: values, how sure they are, and who says so."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from service.camera.attitude import Attitude
from service.camera.look import USUAL_HFOV_DEG
from service.camera.pinhole import Pinhole
from service.camera.pose import LOOSE_DEG, Prior

Source = Literal["form", "exif", "track"]

USUAL_FOCAL_SIGMA = 0.15
"""The focal lengths of drones spread by this share about the usual one."""

TILT_SIGMA_DEG = 3.0
"""The roll of a camera whose pitch nobody states spreads by this much: gimbals keep the horizon level, wings do not."""


@dataclass(frozen=True)
class Reading:
    """One value.

    Attributes:
        value: in the unit that its name says.
        sigma: its standard deviation; of a field of view that of the focal length, as a share.
        source: who says so.
        reading: for metadata, which reading it is.
    """

    value: float
    sigma: float
    source: Source
    reading: str = ""


@dataclass(frozen=True)
class KnownCamera:
    """A camera of which some is known; None where nothing is.

    Attributes:
        heading_deg: compass direction of the photo's top edge; see ``Attitude.heading_deg``.
        pitch_deg: -90 looks straight down.
        roll_deg: clockwise, seen from behind; means something only with a pitch.
        height_m: above the ground.
        hfov_deg: angle that the photo's width covers.
        tilt: the attitude with heading 0, when the pitch is known.
    """

    heading_deg: Reading | None = None
    pitch_deg: Reading | None = None
    roll_deg: Reading | None = None
    height_m: Reading | None = None
    hfov_deg: Reading | None = None
    tilt: Attitude | None = None

    @property
    def has_size(self) -> bool:
        """Whether the photo's ground size follows from what is known."""
        return self.height_m is not None and self.hfov_deg is not None

    def without(self, *names: str) -> KnownCamera:
        """Return the camera when some of what is said is not believed."""
        left = replace(self, **dict.fromkeys(names))
        return replace(left, tilt=None, roll_deg=None) if "pitch_deg" in names else left

    def pinhole(self, aspect: float, pitch_deg: float = -90.0, heading_deg: float = 0.0) -> Pinhole:
        """Return the camera with guesses for what is not known.

        Args:
            aspect: height over width of the photo.
            pitch_deg: where none is known.
            heading_deg: where none is known.
        """
        heading = heading_deg if self.heading_deg is None else self.heading_deg.value
        tilt = self.tilt or Attitude.of_angles(0.0, pitch_deg)
        hfov = USUAL_HFOV_DEG if self.hfov_deg is None else self.hfov_deg.value
        return Pinhole(tilt.turned(heading), hfov, aspect)

    def prior(self, aspect: float, pitch_deg: float) -> Prior:
        """Tell what a pose may rely on: a height only in the stead of a field of view, for it counts from the take-off.

        Args:
            aspect: height over width of the photo.
            pitch_deg: of the look that found the place, where none is known.
        """
        camera, height = self.pinhole(aspect, pitch_deg), self.height_m
        use_height = self.hfov_deg is None
        return Prior(
            attitude=camera.attitude,
            pitch_sigma_deg=LOOSE_DEG if self.pitch_deg is None else self.pitch_deg.sigma,
            roll_sigma_deg=TILT_SIGMA_DEG if self.pitch_deg is None else self.pitch_deg.sigma,
            focal_widths=camera.focal_widths,
            focal_sigma=USUAL_FOCAL_SIGMA if self.hfov_deg is None else self.hfov_deg.sigma,
            height_m=height.value if use_height and height is not None else None,
            height_sigma_m=height.sigma if use_height and height is not None else math.inf,
        )
