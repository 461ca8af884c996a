"""Plane geometry of the town: frames, rectangles, discs, clipping. Metres, x east, y south."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from town.canvas import Points


@dataclass(frozen=True)
class Frame:
    """A rectangle with its own axes: u along the long side, v across.

    Attributes:
        centre: ``[2]`` in metres.
        angle: of the u axis against x, radians.
        half_u: half the length in metres.
        half_v: half the width in metres.
    """

    centre: Points
    angle: float
    half_u: float
    half_v: float

    def at(self, u: float, v: float) -> Points:
        """The point at (u, v) metres from the centre."""
        return np.asarray(self.points([(u, v)])[0])

    def points(self, uv: list[tuple[float, float]] | Points) -> Points:
        """Map ``[N, 2]`` (u, v) to (x, y)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.asarray(self.centre + np.asarray(uv, float) @ np.array([[cos, sin], [-sin, cos]]))

    def local(self, xy: Points) -> Points:
        """Map ``[N, 2]`` (x, y) to (u, v)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.asarray((xy - self.centre) @ np.array([[cos, -sin], [sin, cos]]))

    def rect(self, u: float = 0.0, v: float = 0.0, length: float | None = None, width: float | None = None) -> Points:
        """Corners ``[4, 2]`` of a rectangle centred at (u, v); the whole frame when no size is given."""
        a = self.half_u if length is None else length / 2
        b = self.half_v if width is None else width / 2
        return self.points([(u - a, v - b), (u + a, v - b), (u + a, v + b), (u - a, v + b)])

    def sub(self, u: float, v: float, length: float, width: float, turn: float = 0.0) -> Frame:
        """A smaller frame inside this one, turned by ``turn`` radians, its long side first."""
        if width > length:
            length, width, turn = width, length, turn + np.pi / 2
        return Frame(self.at(u, v), self.angle + turn, length / 2, width / 2)


def disc(centre: Points, radius_m: float, squash: float = 1.0, angle: float = 0.0) -> Points:
    """An ellipse ``[24, 2]`` with radii ``radius_m`` and ``squash × radius_m``."""
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return Frame(centre, angle, 0, 0).points(np.stack([radius_m * np.cos(t), squash * radius_m * np.sin(t)], 1))


def blob(rng: np.random.Generator, centre: Points, radius_m: float, squash: float = 0.7) -> Points:
    """A smooth irregular outline ``[48, 2]``: ponds, beds, bare patches."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    r = 1.0 + sum(rng.uniform(0, 0.35 / k) * np.sin(k * t + rng.uniform(0, 6.3)) for k in (2, 3, 5))
    uv = radius_m * np.stack([r * np.cos(t), squash * r * np.sin(t)], 1)
    return Frame(centre, rng.uniform(0, np.pi), 0, 0).points(uv)


def clip(polygon: Points, point: Points, normal: Points) -> Points:
    """The part of a polygon where ``(x − point) · normal ≥ 0`` (Sutherland–Hodgman); may be empty."""
    side = (polygon - point) @ normal
    kept = []
    for a, b, sa, sb in zip(polygon, np.roll(polygon, -1, 0), side, np.roll(side, -1), strict=True):
        if sa >= 0:
            kept.append(a)
        if sa * sb < 0:
            kept.append(a + (b - a) * sa / (sa - sb))
    return np.array(kept).reshape(-1, 2)


def area(polygon: Points) -> float:
    """Area in m² (shoelace formula)."""
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def inside(polygon: Points, points: Points) -> NDArray[np.bool_]:
    """Even–odd test of ``[N, 2]`` points against a polygon, bool ``[N]``."""
    a, b = polygon, np.roll(polygon, -1, 0)
    x, y = points[:, 0, None], points[:, 1, None]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    left = crosses & (x < a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / rise)
    return np.asarray(left.sum(1) % 2 == 1)


def fit(polygon: Points) -> tuple[Frame, Frame]:
    """The tightest rectangle around a polygon and the largest one of its shape inside.

    Returns:
        The bounding frame (of least area over all directions in steps of 3°) and the inner frame, same axes.
    """

    def extent(angle: float) -> tuple[Points, Points]:
        uv = Frame(np.zeros(2), angle, 0, 0).local(polygon)
        return uv.min(0), uv.max(0)

    angle = min(np.radians(np.arange(0, 90, 3)), key=lambda a: float(np.prod(np.subtract(*extent(a)))))
    low, high = extent(angle)
    centre, half = Frame(np.zeros(2), angle, 0, 0).points((low + high)[None] / 2)[0], (high - low) / 2
    if half[1] > half[0]:
        angle, half = angle + np.pi / 2, half[::-1]
    outer = Frame(centre, float(angle), float(half[0]), float(half[1]))
    scale = 1.0
    while scale > 0.3 and not inside(polygon, outer.rect(0, 0, 2 * half[0] * scale, 2 * half[1] * scale)).all():
        scale -= 0.03
    return outer, Frame(centre, outer.angle, outer.half_u * scale, outer.half_v * scale)


def densify(line: Points, step_m: float = 4.0) -> Points:
    """A polyline with a vertex at least every ``step_m`` metres."""
    pieces = []
    for a, b in pairwise(line):
        count = max(1, int(np.hypot(*(b - a)) / step_m))
        pieces.append(a + (b - a) * np.linspace(0, 1, count, endpoint=False)[:, None])
    return np.concatenate([*pieces, line[-1:]])


def walk(line: Points, step_m: float, start_m: float = 0.0) -> list[tuple[Points, float]]:
    """Points every ``step_m`` metres along a polyline with the line's direction there in radians."""
    lengths = np.hypot(*np.diff(line, axis=0).T)
    total = np.concatenate([[0.0], np.cumsum(lengths)])
    stops = np.arange(start_m, total[-1] - start_m, step_m)
    found = []
    for stop in stops:
        i = min(int(np.searchsorted(total, stop, side="right")) - 1, len(lengths) - 1)
        step = line[i + 1] - line[i]
        found.append((line[i] + step * (stop - total[i]) / max(lengths[i], 1e-9), float(np.arctan2(step[1], step[0]))))
    return found


def beside(line: Points, offset_m: float) -> Points:
    """The polyline moved ``offset_m`` metres to its right (in y-down coordinates)."""
    step = np.gradient(line, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], 1) / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    return np.asarray(line + normal * offset_m)
