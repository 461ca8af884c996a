"""Where the camera was, once its photo lies on the ground; and which hints the ground contradicts."""

import math
from dataclasses import dataclass

import numpy as np

from service.camera.known import KnownCamera
from service.camera.pose import CameraPose, solve_pose
from service.geo import offset
from service.localization.refine import Fix
from service.localization.tilt import Homography

HEADING_OFF_DEG, PITCH_OFF_DEG, SIZE_OFF = 25.0, 8.0, 1.4
"""A heading, a pitch and a ground size (as a factor) that are off by more are disputed: more than compasses, gimbals
and hills explain."""

HEADING_SIGMAS, PITCH_SIGMAS = 2.5, 3.0
"""And by more than this many standard deviations of what is said and of what was found."""

STARTS_DEG = (-88.0, -75.0, -60.0, -45.0, -35.0)
"""Pitches from which the solution of an unknown one starts."""

PITCH_COST = 0.1
"""A pitch is disputed only where it costs this much more for each match than the one that fits best."""

PLANE = 0.08
"""What level ground costs: spread of the camera's place over its height, for one that looks half down. Hills put the
ground under the camera higher or lower than the ground that it sees, the more the further ahead that is."""

STEEP_DEG = -80.0
"""A camera that looks further down than this has a height only if its field of view is known."""

MAX_SIGMA_HEIGHTS = 0.5
"""Of the camera's place, in heights: beyond, the photo does not say where the camera was."""

NO_LENS = "no field of view is known and the photo looks straight down, so its height is open: add hfov_deg"
NO_MATCH = "the photo could not be laid on the ground"
NO_POSE = "what matches does not determine where the camera was: add hfov_deg and pitch_deg"


@dataclass(frozen=True)
class Camera:
    """Where the camera was, and how it looked.

    Attributes:
        lat, lon: degrees.
        height_m: above the ground at the photo's centre; None when the field of view is not known.
        heading_deg, pitch_deg, roll_deg: its attitude; pitch -90 is straight down.
        hfov_deg: field of view that fits best; None when nothing tells it.
        sigma_m: standard deviation of the place along each axis, if the photo's place is right.
    """

    lat: float
    lon: float
    height_m: float | None
    heading_deg: float
    pitch_deg: float
    roll_deg: float
    hfov_deg: float | None
    sigma_m: float


def find_camera(fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float) -> tuple[Camera | None, str | None]:
    """The camera of a photo that lies on the ground.

    Args:
        fix: how it lies.
        known: what is believed of the camera.
        pitch_deg: of the look that found the place, where none is known.
        aspect: height over width of the photo.

    Returns:
        The camera, and what is missing of it or why there is none.
    """
    pose = solve(fix, known, pitch_deg, aspect)
    if pose is None:
        return None, NO_POSE
    has_lens = known.hfov_deg is not None or known.height_m is not None
    steep = pose.attitude.pitch_deg < STEEP_DEG
    if not has_lens and steep and known.pitch_deg is None:
        return None, NO_LENS
    if pose.sigma_m > MAX_SIGMA_HEIGHTS * pose.height_m:
        return None, NO_POSE
    lat, lon = offset(*fix.origin, pose.east_m, pose.north_m)
    _, pitch, roll = pose.attitude.angles_deg
    ahead = 1 / math.tan(math.radians(max(10.0, min(90.0, -pitch))))
    no_height = not has_lens and steep
    return Camera(
        float(lat),
        float(lon),
        None if no_height else float(pose.height_m),
        pose.attitude.heading_deg,
        pitch,
        0.0 if steep else roll,
        None if no_height else pose.hfov_deg,
        math.hypot(pose.sigma_m, PLANE * pose.height_m * ahead),
    ), NO_LENS if no_height else None


def solve(fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float) -> CameraPose | None:
    """The pose that fits the matches and what is known; with an unknown pitch, the best from several starts."""
    guesses = (pitch_deg,) if known.pitch_deg is not None else STARTS_DEG
    poses = [pose for guess in guesses if (pose := _solve_from(fix, known, guess, aspect)) is not None]
    return min(poses, key=lambda pose: pose.cost, default=None)


def _solve_from(fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float) -> CameraPose | None:
    laid = Homography(fix.to_ground, np.ones(0, bool))
    return solve_pose(
        fix.photo, fix.ground_m, fix.tolerance_m, known.prior(aspect, pitch_deg), (laid.centre, laid.right)
    )


def disputes(fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float) -> dict[str, str]:
    """Hints that the ground contradicts, by their names in the form, with what it says instead.

    Args:
        fix: how the photo lies; its place is taken for right.
        known: what is said of the camera.
        pitch_deg: of the look that found the place.
        aspect: height over width of the photo.
    """
    found: dict[str, str] = {}
    heading = known.heading_deg
    if heading is not None:
        off = abs((fix.heading_deg - heading.value + 180) % 360 - 180)
        if off > max(HEADING_OFF_DEG, HEADING_SIGMAS * heading.sigma):
            found["heading_deg"] = f"on the map the photo's top edge faces {fix.heading_deg:.0f}°, {off:.0f}° off this"
    if known.hfov_deg is None or (known.pitch_deg is None and known.height_m is None):
        return found
    pitch, pose = known.pitch_deg, solve(fix, known.without("height_m"), pitch_deg, aspect)
    free = None if pitch is None else solve(fix, known.without("height_m", "pitch_deg"), pitch_deg, aspect)
    if pitch is not None and free is not None:
        off = abs(free.attitude.pitch_deg - pitch.value)
        costs = math.inf if pose is None else (pose.cost - free.cost) / len(fix.photo)
        if off > max(PITCH_OFF_DEG, PITCH_SIGMAS * free.pitch_sigma_deg) and costs > PITCH_COST:
            seen_deg = free.attitude.pitch_deg
            found["pitch_deg"] = f"the photo lies on the map as with a pitch of {seen_deg:.0f}°, {off:.0f}° off"
            pose = free
    if known.height_m is not None and pose is not None:
        times = pose.height_m / known.height_m.value
        if abs(math.log(times)) > math.log(SIZE_OFF):
            found["altitude_m"] = (
                f"the ground that the photo shows is {times:.2f} times as wide as this height makes it"
            )
    return found
