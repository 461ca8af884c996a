"""How a camera is turned, as one rotation matrix.

The world is east, north, up; a camera's axes are those of its photo as it is shown: right, down, and forward into the
scene. Makers write three angles in orders of their own; all of them end in this matrix, and what looks like a special
case (a gimbal that has swung past straight down, a camera mounted sideways, a photo shown upside down) is none here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEEP_DEG = -75.0
"""Below this pitch a heading is that of the photo's top edge. Nearer to the horizon it is where the camera looks; the
two are one unless the camera is rolled, and straight down only the first means anything."""

_SHOWN = {3: 180.0, 6: -90.0, 8: 90.0}
"""For each EXIF Orientation, this is the clockwise turn from the stored picture's top edge to the shown one's (EXIF
2.32, table 6). Mirrored ones undo a mirror, and the upright picture is what the camera saw."""


@dataclass(frozen=True, eq=False)
class Attitude:
    """A camera's attitude.

    Attributes:
        matrix: ``[3, 3]``; its columns are the photo's right, down and forward in east, north, up.
    """

    matrix: Floats

    @classmethod
    def of_angles(cls, heading_deg: float, pitch_deg: float = -90.0, roll_deg: float = 0.0) -> Attitude:
        """Make the attitude of yaw, then pitch, then roll, each about the axis as the one before has left it.

        This is the order of aircraft (DIN 9300) and of DJI's and MAVLink's gimbals.

        Args:
            heading_deg: compass direction in which the camera looks; straight down, that of the photo's top edge.
            pitch_deg: -90 looks straight down, 0 at the horizon.
            roll_deg: positive turns the camera clockwise, seen from behind it.
        """
        h, p, r = (math.radians(angle) for angle in (heading_deg, pitch_deg, roll_deg))
        forward = np.array([math.cos(p) * math.sin(h), math.cos(p) * math.cos(h), math.sin(p)])
        level_right = np.array([math.cos(h), -math.sin(h), 0.0])
        level_down = np.cross(forward, level_right)
        right = math.cos(r) * level_right + math.sin(r) * level_down
        down = math.cos(r) * level_down - math.sin(r) * level_right
        return cls(np.stack([right, down, forward], axis=1))

    @classmethod
    def of_nadir_angles(cls, yaw_deg: float, pitch_deg: float, roll_deg: float) -> Attitude:
        """Make the attitude from angles that are all 0 for a camera that looks down with its top edge to the north.

        This is Pix4D's and senseFly's convention: yaw, pitch and roll of the aircraft in whose floor the camera is
        mounted, so that 90° of pitch looks ahead.
        """
        body = Attitude.of_angles(yaw_deg, pitch_deg, roll_deg).matrix  # its columns: starboard, belly, nose
        starboard, belly, nose = body.T
        return cls(np.stack([starboard, -nose, belly], axis=1))

    def shown(self, orientation: int) -> Attitude:
        """Return the attitude of the photo as it is shown, from that of the stored one and its EXIF Orientation."""
        turn = math.radians(_SHOWN.get(orientation, 0.0))
        right, down, forward = self.matrix.T
        return Attitude(
            np.stack(
                [
                    math.cos(turn) * right + math.sin(turn) * down,
                    math.cos(turn) * down - math.sin(turn) * right,
                    forward,
                ],
                axis=1,
            )
        )

    @property
    def angles_deg(self) -> tuple[float, float, float]:
        """Heading in [0, 360), pitch in [-90, 90] and roll in (-180, 180] that give this attitude; see ``of_angles``.

        Exactly straight down, where heading and roll are one turn, the roll is 0.
        """
        right, down, forward = self.matrix.T
        pitch = math.asin(max(-1.0, min(1.0, forward[2])))
        if math.cos(pitch) < 1e-6:
            return _compass(-down[0], -down[1]), math.degrees(pitch), 0.0
        heading = math.atan2(forward[0], forward[1])
        level_right = np.array([math.cos(heading), -math.sin(heading), 0.0])
        roll = math.atan2(right @ np.cross(forward, level_right), right @ level_right)
        return _compass(forward[0], forward[1]), math.degrees(pitch), math.degrees(roll)

    @property
    def pitch_deg(self) -> float:
        """How far the camera looks above the horizon: -90 is straight down."""
        return self.angles_deg[1]

    @property
    def heading_deg(self) -> float:
        """Compass direction of the photo's top edge where it looks down steeply, else of where it looks; [0, 360)."""
        _, down, forward = self.matrix.T
        toward = -down if self.pitch_deg < STEEP_DEG else forward
        return _compass(toward[0], toward[1])

    def turned(self, clockwise_deg: float) -> Attitude:
        """Return the attitude after a turn about the vertical."""
        turn = math.radians(clockwise_deg)
        cos, sin = math.cos(turn), math.sin(turn)
        return Attitude(np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]) @ self.matrix)


def _compass(east: float, north: float) -> float:
    return math.degrees(math.atan2(east, north)) % 360.0 % 360.0  # twice: 360 of a hair below 0
