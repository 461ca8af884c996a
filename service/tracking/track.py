"""One flight: several explanations of its photos at once, each a Kalman filter with a probability.

A photo names places, and any of them may be wrong. For every hypothesis (a motion) and every place, three things can
be true: the motion is right and the place is its next fix; the motion is right and the photo is not (it shows no place
of the gallery, or none that was listed); the motion is lost and the place begins a new one. Bayes' rule weighs them
against each other, on the scale of "nothing is known, and the photo tells nothing", which has the weight ``lost``:

    fix    w · min(L · A · N, most)        L: odds that the place is right against that none of the places is
    miss   w                               A: ground that the gallery covers; A · N: how much likelier than anywhere
    birth  lost · L                        w: weight of the motion

So a place near the prediction needs little evidence, one far away has its full chance, and a track that has seen
nothing for a while gives way to the first good fix. This is the Gaussian sum form of multiple hypothesis tracking
(Reid, "An Algorithm for Tracking Multiple Targets", IEEE TAC 24, 1979) for one target.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from service.errors import InvalidParameter
from service.geo import Circle, offset_m
from service.localization.confidence import Status
from service.localization.places import Place
from service.tracking.aircraft import Aircraft, turned
from service.tracking.filter import (
    GATE,
    Array,
    MeasuredPosition,
    Motion,
    Shift,
    gaussian_density,
    largest_sigma_m,
    squared_distance,
)
from service.tracking.flight import FlightLens
from service.tracking.history import HINDSIGHT, MAX_HISTORY, Entry, Passed, Use, look_back, sure_radius_m
from service.tracking.odometry import Sight

MAX_HYPOTHESES = 8
MIN_WEIGHT = 1e-4
TRUST_S = 300.0
"""A track that nothing confirms stays right for this time in the mean: 10 photos lost at one in 2 s cost it 6 %."""

MAX_GAP_S = 600.0
"""After ten minutes without a photo a drone may be anywhere in reach: the track starts anew."""

LEAST_NONE = 0.05
"""The photo shows none of its places with at least this probability: no calibration is believed beyond 95 %, so that
one wild photo does not outweigh a track."""

SAME_MOTION = 4.0
"""Two hypotheses within this squared Mahalanobis distance (two standard deviations) are one."""

Trust = Literal["located", "ambiguous", "unmatched"]
"""This speaks for a photo's places: it is located; several of them explain it as well; or it may show none of them, and
no matches speak for one although the model could have found some."""

ODDS_SHARE: dict[Trust, float] = {"located": 1.0, "ambiguous": 0.1, "unmatched": 0.1}
"""The odds of a photo's places are worth this much. Its confidence is right over photos of all kinds; but photos of a
flight that has left the map come in rows, each ambiguous in the same way, and must not lead the track there."""

MAX_EVIDENCE: dict[Trust, float] = {"located": 10.0, "ambiguous": 2.0, "unmatched": 1.0}
"""Photos that follow each other resemble each other, and so do their errors: a fix on the track counts for at most so
many times as likely as a miss, so that it takes several to make up for what the track was right about before. One
without matches does not turn the track alone; it leaves a hypothesis that the next photo may confirm."""

MAX_RADIUS_M = 100_000.0


@dataclass(frozen=True)
class Options:
    """What is known of the aircraft.

    Attributes:
        max_speed_m_s: over ground; no fix is fused that would need more.
        acceleration_m_s2: standard deviation of its acceleration along each axis.
        expiry_s: seconds without a photo after which the track is forgotten.
    """

    max_speed_m_s: float = 30.0
    acceleration_m_s2: float = 2.0
    expiry_s: float = 600.0


@dataclass(frozen=True)
class Hypothesis:
    """A motion and its weight.

    Attributes:
        motion: see ``Motion``.
        weight: probability that this is the flight.
        grain_m: of the place that it last took as a fix.
        common_m: what its fixes err by alike, the largest that one had.
        place: what the last photo gave it, None when it gave nothing.
        aircraft: whose point on the ground ``motion`` is; None while no photo told.
        path: where it passed at the last photos, this one included.
    """

    motion: Motion
    weight: float
    grain_m: float
    common_m: float
    place: Place | None = None
    aircraft: Aircraft | None = None
    path: tuple[Passed, ...] = ()

    @property
    def covariance_m2(self) -> Array:
        """``[2, 2]`` of the position, east and north, with what all fixes err by alike."""
        return self.motion.position_covariance_m2 + self.common_m**2 * np.eye(2)

    def passing(self, timestamp_s: float) -> Hypothesis:
        """Return it with where it is now at the end of its path."""
        aircraft = self.aircraft
        motion, covariance_m2 = (self.motion, self.covariance_m2)
        if aircraft is not None:
            motion, covariance_m2 = aircraft.motion, aircraft.covariance_m2
        passed = Passed(
            timestamp_s,
            motion.lat,
            motion.lon,
            largest_sigma_m(covariance_m2),
            "ground point at image centre" if aircraft is None else "camera",
            None if aircraft is None else aircraft.height_m,
            *motion.velocity_m_s.tolist(),
        )
        return replace(self, path=(*self.path[1 - HINDSIGHT :], passed))


@dataclass(frozen=True)
class Estimate:
    """The likeliest motion after a photo, of the point on the ground or of the aircraft.

    Attributes:
        motion: mean position and velocity.
        covariance_m2: ``[2, 2]`` of the position, east and north.
        confidence: probability that this motion is the right one.
        accuracy_m: radius that holds the truth with 68 % probability, taken from the long axis of the ellipse; None
            when ``confidence`` is not above 68 %: then no radius round one place does.
    """

    motion: Motion
    covariance_m2: Array
    confidence: float

    @property
    def accuracy_m(self) -> float | None:
        """See the class."""
        return sure_radius_m(largest_sigma_m(self.covariance_m2), self.confidence)


@dataclass
class Track:
    """A flight and what is believed of it. Not safe for several threads: photos come one after the other.

    Attributes:
        options: see ``Options``.
        hypotheses: what the photos may mean, the likeliest first.
        lost: probability that none of them is right.
        timestamp_s: of the last photo.
        sight: what the last photo showed, if it is known how that lies on the ground.
        uses: how many photos became what.
        lens: what the flight tells of it; None before a photo of use.
        history: what is believed of each photo, the last ``MAX_HISTORY``.
    """

    options: Options = field(default_factory=Options)
    hypotheses: list[Hypothesis] = field(default_factory=list)
    lost: float = 1.0
    timestamp_s: float | None = None
    sight: Sight | None = None
    uses: dict[Use, int] = field(default_factory=lambda: {"fused": 0, "gated": 0, "lost": 0})
    lens: FlightLens | None = None
    history: deque[Entry] = field(default_factory=lambda: deque(maxlen=MAX_HISTORY))

    @property
    def estimate(self) -> Estimate | None:
        """The likeliest motion of the point on the ground at ``timestamp_s``, None before the first fix."""
        if not self.hypotheses:
            return None
        best = self.hypotheses[0]
        return Estimate(best.motion, best.covariance_m2, best.weight)

    @property
    def shown(self) -> Estimate | None:
        """What is told of the flight: the aircraft where it is known, else its point on the ground."""
        ground, aircraft = self.estimate, self.aircraft
        if ground is None or aircraft is None:
            return ground
        return Estimate(aircraft.motion, aircraft.covariance_m2, ground.confidence)

    @property
    def aircraft(self) -> Aircraft | None:
        """The aircraft of the likeliest motion, None where nothing tells its place."""
        return self.hypotheses[0].aircraft if self.hypotheses else None

    def check(self, timestamp_s: float) -> None:
        """Refuse a photo that is not later than the last one.

        Raises:
            InvalidParameter: it is not.
        """
        if self.timestamp_s is not None and timestamp_s <= self.timestamp_s:
            raise InvalidParameter(
                f"timestamp is {timestamp_s} s, but the track's last photo is of {self.timestamp_s} s; send photos in "
                "the order in which they were taken, each with a later timestamp.",
                limit=self.timestamp_s,
                actual=timestamp_s,
            )

    def predicted_area(self, timestamp_s: float, sigma_m: float) -> Circle | None:
        """Tell where the likeliest motion expects a fix of this ``sigma_m``; None when it is likelier wrong."""
        if not self.hypotheses or self.hypotheses[0].weight < 0.5:
            return None
        best = self.hypotheses[0]
        motion = self._predicted(best, timestamp_s)
        expected_m = math.hypot(largest_sigma_m(motion.position_covariance_m2), best.common_m, sigma_m)
        return Circle(motion.lat, motion.lon, min(math.sqrt(GATE) * expected_m, MAX_RADIUS_M))

    def update(
        self,
        timestamp_s: float,
        places: list[Place],
        area_m2: float,
        trust: Trust = "located",
        shift: Shift | None = None,
    ) -> Use:
        """Take in what a photo says.

        Args:
            timestamp_s: when it was taken, in seconds of any clock.
            places: the places that it may show; none for a photo that shows no place of the gallery.
            area_m2: ground on which places were searched.
            trust: what the places are worth.
            shift: the movement since the photo before, if that was measured.

        Returns:
            ``fused`` when the likeliest motion took one of the places as its fix, ``gated`` when it took none, ``lost``
            when there was none to take.

        Raises:
            InvalidParameter: the timestamp does not increase.
        """
        self.check(timestamp_s)
        dt_s = 0.0 if self.timestamp_s is None else timestamp_s - self.timestamp_s
        if dt_s > MAX_GAP_S:
            self.hypotheses, self.lost = [], 1.0
        survival = math.exp(-dt_s / TRUST_S)
        lost = self.lost + (1 - survival) * sum(each.weight for each in self.hypotheses)

        odds = list(zip(places, _odds(places, ODDS_SHARE[trust]), strict=True))
        branches = [self._birth(place, lost * odd) for place, odd in odds]
        for each in self.hypotheses:
            motion, aircraft = self._predicted(each, timestamp_s, shift), each.aircraft
            if aircraft is not None:
                aircraft = aircraft.predict(dt_s, self.options.acceleration_m_s2, shift, each.motion)
            predicted = replace(each, motion=motion, weight=each.weight * survival, place=None, aircraft=aircraft)
            branches.append(predicted)
            for place, odd in odds:
                if in_gate(motion, place) and self._in_reach(each.motion, place, dt_s):
                    branches.append(self._fused(predicted, place, odd * area_m2, MAX_EVIDENCE[trust]))
                elif (gap := turned(aircraft, motion, place)) is not None:
                    branches.append(self._fused(predicted, place, odd * area_m2, MAX_EVIDENCE[trust], gap))
        kept, self.lost = _pruned(branches, lost)
        self.hypotheses = [each.passing(timestamp_s) for each in kept]
        self.timestamp_s = timestamp_s
        use = self._use(places)
        self.uses[use] += 1
        return use

    def note(self, use: Use, status: Status) -> None:
        """Enter what is believed now, at the last photo, into the history, and what it tells of those before."""
        if self.timestamp_s is None:
            return
        if not self.hypotheses:
            self.history.append(Entry(self.timestamp_s, use, status, 0.0))
            return
        best = self.hypotheses[0]
        self.history.append(Entry(self.timestamp_s, use, status, best.weight, best.path[-1]))
        look_back(self.history, best.path, best.weight)

    def _use(self, places: list[Place]) -> Use:
        if self.hypotheses and self.hypotheses[0].place is not None:
            return "fused"
        return "gated" if places else "lost"

    def _birth(self, place: Place, weight: float) -> Hypothesis:
        fastest_m_s = self.options.max_speed_m_s
        aircraft = None if place.camera is None else Aircraft.start(place.camera, fastest_m_s)
        motion = Motion.start(_fix(place), fastest_m_s)
        return Hypothesis(motion, weight, place.error.grain_m, place.error.common_m, place, aircraft)

    def _fused(
        self,
        predicted: Hypothesis,
        place: Place,
        flat_odds_m2: float,
        most: float,
        turned_by: tuple[Array, Array] | None = None,
    ) -> Hypothesis:
        """The hypothesis that a place is the motion's next fix; after a turn, its point on the ground begins anew."""
        evidence = min(flat_odds_m2 * gaussian_density(*(turned_by or _gap(predicted.motion, place))), most)
        fix, fastest_m_s = _fix(place), self.options.max_speed_m_s
        motion = predicted.motion.update(fix) if turned_by is None else Motion.start(fix, fastest_m_s)
        common_m, aircraft = max(predicted.common_m, place.error.common_m), predicted.aircraft
        if place.camera is not None:
            begun = Aircraft.start(place.camera, fastest_m_s)
            aircraft = begun if aircraft is None else aircraft.update(place.camera)
        weight, grain_m = predicted.weight * evidence, place.error.grain_m
        return Hypothesis(motion, weight, grain_m, common_m, place, aircraft, predicted.path)

    def _predicted(self, hypothesis: Hypothesis, timestamp_s: float, shift: Shift | None = None) -> Motion:
        dt_s = 0.0 if self.timestamp_s is None else timestamp_s - self.timestamp_s
        return hypothesis.motion.predict(dt_s, self.options.acceleration_m_s2, hypothesis.grain_m, shift)

    def _in_reach(self, motion: Motion, place: Place, dt_s: float) -> bool:
        """Whether the aircraft could have come here since the last photo, within the errors of both positions."""
        gap_m, expected = _gap(motion, place)
        return math.hypot(*gap_m) <= self.options.max_speed_m_s * dt_s + math.sqrt(GATE) * largest_sigma_m(expected)


def in_gate(motion: Motion, place: Place) -> bool:
    """Say whether a place is as near as 99 of 100 right fixes are."""
    return squared_distance(*_gap(motion, place)) <= GATE


def _gap(motion: Motion, place: Place) -> tuple[Array, Array]:
    """Metres from a motion to a place, and their covariance if their errors had nothing in common.

    The update knows better, but a gate must let a fix pass whose error has suddenly become another: on the next sheet
    of a map, say.
    """
    gap_m = np.array(offset_m(motion.lat, motion.lon, place.lat, place.lon))
    return gap_m, motion.position_covariance_m2 + place.error.sigma_m**2 * np.eye(2)


def _fix(place: Place) -> MeasuredPosition:
    return MeasuredPosition(place.lat, place.lon, place.error)


def _odds(places: list[Place], share: float) -> list[float]:
    """For each place the odds that it is right against that none of them is.

    The confidences are judged one by one, so their sum may exceed what is left by ``LEAST_NONE``; it is then scaled.
    """
    total = sum(place.confidence for place in places)
    scale = min(1.0, (1 - LEAST_NONE) / total) if total > 0 else 1.0
    return [share * scale * place.confidence / (1 - scale * total) for place in places]


def _pruned(branches: list[Hypothesis], lost: float) -> tuple[list[Hypothesis], float]:
    """Give the weight of each branch to a better one that says the same, keep the best, and make the sum 1."""
    kept: list[Hypothesis] = []
    for branch in sorted(branches, key=lambda each: each.weight, reverse=True):
        for i, better in enumerate(kept):
            if _says_the_same(better, branch):
                path = better.path or branch.path
                kept[i] = replace(better, weight=better.weight + branch.weight, path=path)
                break
        else:
            kept.append(branch)
    kept = sorted(kept, key=lambda each: each.weight, reverse=True)[:MAX_HYPOTHESES]
    total = lost + sum(each.weight for each in kept)
    kept = [replace(each, weight=each.weight / total) for each in kept]
    return [each for each in kept if each.weight >= MIN_WEIGHT], lost / total


def _says_the_same(one: Hypothesis, other: Hypothesis) -> bool:
    gap_m = np.array(offset_m(one.motion.lat, one.motion.lon, other.motion.lat, other.motion.lon))
    return squared_distance(gap_m, one.covariance_m2) <= SAME_MOTION
