"""Which looks a photo is given: first what the hints say, then, while the answer is unsure, what they leave open.

Hints are evidence, not orders: after the look that believes all of them come looks that leave them out, one by one and
then all. A pitch that nobody states is guessed as -90, -45 and -60; a look is right for a pitch that is off by 15°.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from service.camera.known import KnownCamera
from service.camera.look import Look, look_of, square_of
from service.camera.pinhole import Pinhole

Effort = Literal["fast", "normal", "thorough"]

LOOKS: dict[Effort, int] = {"fast": 1, "normal": 6, "thorough": 7}
"""A photo is given at most so many looks."""

MIN_HEIGHT_M = 0.01
"""A camera is taken to be at least this high: below, numbers of hostile metadata multiply to 0."""

PITCHES_DEG = (-90.0, -45.0)
"""An unknown pitch is first guessed to be one of these."""

STEEP_DEG = -67.5
"""Pitches are told apart halfway between the two."""

LIKE_DEG = 10.0
"""Of looks whose pitch differs by less than this, and that otherwise believe the same, one is enough."""

HALF_TURN_DEG = 45.0
"""Descriptors know turns of up to 50° or so. A photo of unknown heading is tried in four quarter turns; every other
look starts from halfway between two of them."""


QUARTER_DEG = 60.0
"""A square is matched only where it is turned by less than this against the ground: half a quarter turn, and what a
slant or a look halfway between adds. Descriptors that know any turn are matched however they lie."""

HEADING_SIGMAS, TURNED_DEG = 3.0, 10.0
"""A heading that is believed may be off by so many of its spreads, and a slanting square by a little more."""

SIZE_SIGMAS, SIZE_SIGMA, GUESSED_SIGMA = 2.5, 0.1, 0.3
"""A size that is believed may be off likewise, in the logarithm: by so many of its spreads, by what hills and the slant
add, and by a guess at the pitch."""


@dataclass(frozen=True)
class PlannedLook:
    """One look.

    Attributes:
        known: the camera as far as it is believed.
        pitch_deg: of the camera, stated or guessed.
        turn_deg: heading that is pretended where none is known; the look is then tried in quarter turns of it.
        without: hints that are left out, by their names in the form.
    """

    known: KnownCamera
    pitch_deg: float
    turn_deg: float = 0.0
    without: tuple[str, ...] = ()

    @property
    def heading_known(self) -> bool:
        """Whether one turn is enough."""
        return self.known.heading_deg is not None

    def is_like(self, other: "PlannedLook") -> bool:
        """Tell whether another look that believes neither heading nor size shows nearly the same."""
        bare = not (self.heading_known or other.heading_known or self.known.has_size or other.known.has_size)
        return bare and self.turn_deg == other.turn_deg and abs(self.pitch_deg - other.pitch_deg) <= LIKE_DEG

    def camera(self, aspect: float) -> Pinhole:
        """Return the hypothesis, for a photo of this height over width."""
        return self.known.pinhole(aspect, self.pitch_deg, self.turn_deg)

    def look(self, aspect: float, largest_m: float | None = None) -> Look:
        """Tell how the photo is laid flat.

        Args:
            aspect: height over width of the photo.
            largest_m: ground that the square may show; counts only where the photo's size is known.
        """
        height_m = self._height_m
        largest = None if largest_m is None or height_m is None else largest_m / height_m
        return look_of(self.camera(aspect), north_up=self.heading_known or self.turn_deg != 0, ground_side=largest)

    def side_m(self, look: Look) -> float | None:
        """Return the ground side of a look's square, metres; None where the photo's size is not known."""
        height_m = self._height_m
        return None if height_m is None or look.side_heights is None else look.side_heights * height_m

    def square(self, aspect: float, side_m: float) -> Look | None:
        """Lay flat a square of just this ground side, north up; None where the photo's size is not known."""
        height_m = self._height_m
        return None if height_m is None else square_of(self.camera(aspect), side_m / height_m)

    def within_deg(self, turns: int) -> float:
        """Tell how far the square can be from lying north up, in the best of so many ``turns``."""
        heading = self.known.heading_deg
        off = 180.0 if heading is None else HEADING_SIGMAS * heading.sigma + TURNED_DEG
        return min(off, QUARTER_DEG if turns > 1 else 180.0)

    def sides_m(self, look: Look) -> tuple[float, float]:
        """Bound the ground side that a look's square can have if what is believed is right, metres."""
        side_m, height, lens = self.side_m(look), self.known.height_m, self.known.hfov_deg
        if side_m is None or height is None or lens is None:
            return 0.0, math.inf
        guessed = GUESSED_SIGMA if self.known.pitch_deg is None else 0.0
        sigma = math.hypot(height.sigma / max(MIN_HEIGHT_M, height.value), lens.sigma, SIZE_SIGMA, guessed)
        factor = math.exp(min(10.0, SIZE_SIGMAS * sigma))
        return side_m / factor, side_m * factor

    @property
    def _height_m(self) -> float | None:
        height = self.known.height_m if self.known.has_size else None
        return None if height is None else max(MIN_HEIGHT_M, height.value)


GUESSES = ((-45.0, HALF_TURN_DEG), (-90.0, HALF_TURN_DEG), (-60.0, 0.0), (-45.0, 0.0), (-60.0, HALF_TURN_DEG))
"""Looks that believe no hint, after the one straight down, have these pitches and turns."""

HINTS: dict[str, tuple[str, Callable[[KnownCamera], bool]]] = {
    "altitude_m": ("height_m", lambda known: known.has_size),
    "heading_deg": ("heading_deg", lambda known: known.heading_deg is not None),
    "pitch_deg": ("pitch_deg", lambda known: known.pitch_deg is not None),
}
"""These hints can be left out, by their names in ``KnownCamera``; each tells whether it is there."""


def plan_looks(known: KnownCamera, effort: Effort) -> list[PlannedLook]:
    """Return the looks for a camera of which some is known, in the order in which they are tried."""
    said = tuple(name for name, (_, is_there) in HINTS.items() if is_there(known))
    plans = [_plan(known, ())]
    if known.pitch_deg is None and known.heading_deg is not None:
        plans.append(PlannedLook(known, PITCHES_DEG[1]))
    if len(said) > 1:
        plans += [_plan(known, (name,)) for name in said]
    if len(said) > 2:
        plans.append(_plan(known, said[:2]))  # whatever height and compass say: gimbals err least
    bare = known.without(*(HINTS[name][0] for name in said))
    guesses = [(PITCHES_DEG[0], 0.0), *GUESSES] if said else GUESSES
    left = [PlannedLook(bare, pitch, turn, said) for pitch, turn in guesses]
    plans += [look for look in left if not any(look.is_like(other) for other in plans)]
    return plans[: LOOKS[effort]]


def _plan(known: KnownCamera, without: tuple[str, ...]) -> PlannedLook:
    """The look that leaves some hints out; in the stead of a pitch that is not believed, one that is far from it."""
    left = known.without(*(HINTS[name][0] for name in without))
    if left.pitch_deg is not None:
        return PlannedLook(left, left.pitch_deg.value, 0.0, without)
    steep = known.pitch_deg is not None and known.pitch_deg.value < STEEP_DEG
    return PlannedLook(left, PITCHES_DEG[1] if steep else PITCHES_DEG[0], 0.0, without)
