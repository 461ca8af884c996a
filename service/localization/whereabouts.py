"""Where the camera was, once its photo lies on the ground."""

import math
from dataclasses import dataclass, field

import numpy as np

from service.camera.known import KnownCamera
from service.camera.pinhole import Floats
from service.camera.pose import CameraPose, solve_pose
from service.geo import offset
from service.localization.refine import Fix
from service.localization.terrain import Terrain
from service.localization.tilt import Homography

STARTS_DEG = (-88.0, -75.0, -60.0, -45.0, -35.0)
"""The solution of an unknown pitch starts from these."""

GUESS_COST = 3.0
"""A pitch that nobody states is that of the look that found the place, unless another costs so much less: two and a
half standard deviations. Roofs and slopes look like a slant, and most looks are about right."""

PLANE = 0.12
"""Level ground costs this: the camera's place spreads along its line of sight by this share of its height, for one that
looks half down. Hills put the ground that it sees higher or lower, the more the further ahead that is. Of 21 real
photos over hills whose lens is stated by the maker, 0.67 lie within what is claimed, and 0.52 with a tenth."""

MAP_M = 2.0
"""Maps are off by this spread along either axis: satellite imagery is laid on the ground to a few metres."""

STEEP_DEG = -80.0
"""A camera that looks further down than this has a height only if its field of view is known."""

MAX_SIGMA_HEIGHTS = 0.5
"""Where the camera's place spreads by more, in heights, the photo does not say where the camera was."""

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
        covariance_m2: ``[2, 2]`` of the place, east and north, whose mean over all directions is ``sigma_m`` squared.
    """

    lat: float
    lon: float
    height_m: float | None
    heading_deg: float
    pitch_deg: float
    roll_deg: float
    hfov_deg: float | None
    sigma_m: float
    covariance_m2: Floats = field(repr=False, compare=False)


def find_camera(
    fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float, terrain: Terrain | None = None
) -> tuple[Camera | None, str | None]:
    """Find the camera of a photo that lies on the ground.

    Args:
        fix: how it lies.
        known: what is believed of the camera.
        pitch_deg: of the look that found the place, where none is known.
        aspect: height over width of the photo.
        terrain: the ground's heights around the fix; None where nobody knows.

    Returns:
        The camera, and what is missing of it or why there is none.
    """
    pose = solve(fix, known, pitch_deg, aspect, None if terrain is None else terrain.rise_m(fix))
    if pose is None:
        return None, NO_POSE
    has_lens = known.hfov_deg is not None or known.height_m is not None
    steep = pose.attitude.pitch_deg < STEEP_DEG
    if pose.sigma_m > MAX_SIGMA_HEIGHTS * pose.height_m:
        return None, NO_POSE
    lat, lon = offset(*fix.origin, pose.east_m, pose.north_m)
    _, pitch, roll = pose.attitude.angles_deg
    ahead = 1 / math.tan(math.radians(max(10.0, min(90.0, -pitch))))
    no_height = not has_lens and steep
    plane_m = (PLANE * pose.height_m if terrain is None else terrain.SIGMA_M) * ahead
    heading = math.radians(pose.attitude.heading_deg)
    toward = np.array([math.sin(heading), math.cos(heading)])  # hills move the place along the view
    return (
        Camera(
            float(lat),
            float(lon),
            None if no_height else float(pose.height_m),
            pose.attitude.heading_deg,
            pitch,
            0.0 if steep else roll,
            None if no_height else pose.hfov_deg,
            math.hypot(pose.sigma_m, plane_m / math.sqrt(2), MAP_M),  # the mean over both axes
            pose.covariance[:2, :2] + plane_m**2 * np.outer(toward, toward) + MAP_M**2 * np.eye(2),
        ),
        NO_LENS if no_height else None,
    )


def solve(
    fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float, up_m: Floats | None = None
) -> CameraPose | None:
    """Find the pose that fits the matches and what is known.

    An unknown pitch starts from that of the look; from others too, unless what the matches want is so near that no
    other can cost enough less.
    """
    start_deg = max(pitch_deg, STARTS_DEG[0]) if known.pitch_deg is None else pitch_deg
    first = _solve_from(fix, known, start_deg, aspect, up_m)
    if known.pitch_deg is not None or (first is not None and first.pitch_cost < GUESS_COST):
        return first
    guesses = [guess for guess in STARTS_DEG if guess != start_deg]
    others = [pose for guess in guesses if (pose := _solve_from(fix, known, guess, aspect, up_m)) is not None]
    best = min(others, key=lambda pose: pose.cost, default=None)
    return first if first is not None and (best is None or first.cost < best.cost + GUESS_COST) else best


def _solve_from(
    fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float, up_m: Floats | None
) -> CameraPose | None:
    laid = Homography(fix.to_ground, np.ones(0, bool))
    return solve_pose(
        fix.photo, fix.ground_m, fix.tolerance_m, known.prior(aspect, pitch_deg), (laid.centre, laid.right), up_m
    )
