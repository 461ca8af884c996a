"""Which hints the ground contradicts, once the photo lies on it at a place that is sure."""

import math
from dataclasses import replace

from service.camera.known import KnownCamera, Reading
from service.camera.pose import CameraPose
from service.localization.refine import Fix
from service.localization.whereabouts import STEEP_DEG, solve

HEADING_OFF_DEG, PITCH_OFF_DEG, SIZE_OFF, LENS_OFF = 25.0, 8.0, 1.4, 1.3
"""A heading, a pitch, a ground size and a focal length (as factors) that are off by more are disputed: more than
compasses, gimbals, hills and the crop of a video explain."""

HEADING_SIGMAS, PITCH_SIGMAS = 2.5, 3.0
"""They must also be off by more than this many standard deviations of what is said and of what was found."""

COST = 6.0
"""A pitch and a focal length are disputed only where a pose that is free of them costs so much less: three and a half
standard deviations."""

OPEN_LENS = 0.4
"""A pose that does not believe what is said of the focal length lets it spread by this share."""


def disputes(fix: Fix, known: KnownCamera, pitch_deg: float, aspect: float) -> dict[str, str]:
    """Name the hints that the ground contradicts, by their names in the form, with what it says instead.

    Args:
        fix: how the photo lies; its place is taken for right.
        known: what is said of the camera.
        pitch_deg: of the look that found the place.
        aspect: height over width of the photo.
    """
    found: dict[str, str] = {}
    heading, lens = known.heading_deg, known.hfov_deg
    if heading is not None:
        off = abs((fix.heading_deg - heading.value + 180) % 360 - 180)
        if off > max(HEADING_OFF_DEG, HEADING_SIGMAS * heading.sigma):
            found["heading_deg"] = f"on the map the photo's top edge faces {fix.heading_deg:.0f}°, {off:.0f}° off this"
    if lens is None or (known.pitch_deg is None and known.height_m is None):
        return found
    said = known.without("height_m")
    pose, of_slant = solve(fix, said, pitch_deg, aspect), dict[str, str]()
    if known.pitch_deg is not None:
        free = solve(fix, said.without("pitch_deg"), pitch_deg, aspect)
        open_lens = solve(fix, replace(said, hfov_deg=replace(lens, sigma=OPEN_LENS)), pitch_deg, aspect)
        cheapest = min(
            (each for each in (free, open_lens) if each is not None), key=lambda each: each.cost, default=None
        )
        if cheapest is not None and (pose is None or pose.cost - cheapest.cost > COST):
            of_slant = _pitch(known.pitch_deg, cheapest) if cheapest is free else _lens(lens, cheapest)
            pose = cheapest if of_slant else pose
    if pose is None or known.height_m is None:
        return found | of_slant
    slanting = known.pitch_deg is not None and pose.attitude.pitch_deg >= STEEP_DEG
    return found | of_slant | _size(known.height_m, lens, pose.height_m, slanting)


def _pitch(said: Reading, pose: CameraPose) -> dict[str, str]:
    seen_deg = pose.attitude.pitch_deg
    off = abs(seen_deg - said.value)
    if off <= max(PITCH_OFF_DEG, PITCH_SIGMAS * pose.pitch_sigma_deg):
        return {}
    return {"pitch_deg": f"the photo lies on the map as with a pitch of {seen_deg:.0f}°, {off:.0f}° off this"}


def _lens(said: Reading, pose: CameraPose) -> dict[str, str]:
    stated = 0.5 / math.tan(math.radians(said.value) / 2)
    if abs(math.log(pose.focal_widths / stated)) <= math.log(LENS_OFF):
        return {}
    return {"hfov_deg": f"the photo lies on the map as with a field of view of {pose.hfov_deg:.0f}°"}


def _size(height: Reading, lens: Reading, found_m: float, slanting: bool) -> dict[str, str]:
    """A height that makes the ground too wide or narrow; only a known slant tells whether it is not a stated lens."""
    times = found_m / height.value
    if abs(math.log(times)) <= math.log(SIZE_OFF):
        return {}
    wide = f"the ground that the photo shows is {times:.2f} times as wide as"
    found = {"altitude_m": f"{wide} this height makes it"}
    if lens.source == "form" and not slanting:
        found["hfov_deg"] = f"{wide} this and the height make it: one of them is off"
    return found
