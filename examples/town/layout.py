"""The plan of the town: where river, roads and blocks lie and what each block is for.

The ground is cut by straight lines again and again, wide roads first, and the whole plan is then bent by a smooth
warp, so that streets curve together with everything along them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from town.canvas import Points
from town.shapes import area, densify, fit

ARTERIAL_M, COLLECTOR_M, STREET_M, RIVER_M = 15.0, 10.0, 7.0, 44.0  # RIVER_M includes both banks

# What stands in the larger blocks: in the middle, by rising size, and around it; the rest is houses.
CENTRAL = ["square", "old_town", "courtyards", "retail", "park"]
OUTER = [
    "industry",
    "school",
    "apartments",
    "allotments",
    "towers",
    "industry",
    "orchard",
    "courtyards",
    "site",
    "apartments",
]
DWELLINGS = ["villas", "houses", "rows", "houses", "bungalows"]


@dataclass(frozen=True)
class Road:
    """A road's centre line ``[N, 2]`` and width in metres."""

    line: Points
    width_m: float


@dataclass(frozen=True)
class Block:
    """Ground between roads: its outline ``[N, 2]`` up to the pavement, and its use."""

    outline: Points
    use: str


@dataclass
class Layout:
    """The plan: the river's centre line, roads from wide to narrow, and blocks."""

    river: Points
    roads: list[Road] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


Cut = tuple[Points, float]  # a road to be: its two ends and its width in metres


@dataclass(frozen=True)
class Cell:
    """A convex polygon ``[N, 2]`` and, per edge, the distance to keep from it (half the road, and the pavement)."""

    corners: Points
    margins: tuple[float, ...]

    def cut(self, point: Points, direction: Points, margin_m: float) -> tuple[Cell, Cell, Points]:
        """Cut along a line; the left part, the right part and the cut itself ``[2, 2]``."""
        normal = np.array([-direction[1], direction[0]])
        side = (self.corners - point) @ normal
        parts: tuple[list[tuple[Points, float]], list[tuple[Points, float]]] = ([], [])
        crossing = []
        for i, (a, margin) in enumerate(zip(self.corners, self.margins, strict=True)):
            j = (i + 1) % len(side)
            here = 0 if side[i] >= 0 else 1
            parts[here].append((a, margin))
            if (side[i] >= 0) != (side[j] >= 0):
                c = a + (self.corners[j] - a) * side[i] / (side[i] - side[j])
                crossing.append(c)
                parts[here].append((c, margin_m))
                parts[1 - here].append((c, margin))
        left, right = (Cell(np.array([p for p, _ in part]), tuple(m for _, m in part)) for part in parts)
        return left, right, np.array(crossing)

    def inset(self) -> Points:
        """The polygon ``[N, 2]`` that keeps its margins; empty if nothing is left."""
        cell = self
        for a, b, margin in zip(self.corners, np.roll(self.corners, -1, 0), self.margins, strict=True):
            along = (b - a) / max(float(np.hypot(*(b - a))), 1e-9)
            inwards = np.array([-along[1], along[0]])
            if ((cell.corners - a) @ inwards < margin).all():
                return np.empty((0, 2))
            if ((cell.corners - a) @ inwards < margin).any():
                cell = cell.cut(a + inwards * margin, along, 0.0)[0]
        return cell.corners

    def halve(self, rng: np.random.Generator, width_m: float) -> tuple[Cell, Cell, Points]:
        """Cut across the longest edge, near its middle and not quite square."""
        edges = np.roll(self.corners, -1, 0) - self.corners
        i = int(np.argmax(np.hypot(*edges.T)))
        angle = np.arctan2(edges[i, 1], edges[i, 0]) + np.pi / 2 + rng.normal(0, 0.09)
        point = self.corners[i] + edges[i] * rng.uniform(0.4, 0.6)
        return self.cut(point, np.array([np.cos(angle), np.sin(angle)]), width_m / 2 + 2.0)


def _warp(rng: np.random.Generator) -> Callable[[Points], Points]:
    """A smooth bend of the plane: a few plane waves of 300–600 m wavelength and 10–20 m amplitude."""
    waves = []
    for _ in range(4):
        heading, length = rng.uniform(0, 2 * np.pi), rng.uniform(300, 600)
        waves.append((2 * np.pi / length * np.array([np.cos(heading), np.sin(heading)]), rng.uniform(0, 2 * np.pi)))
    shifts = rng.uniform(10, 20, (4, 1)) * np.stack([np.cos(a := rng.uniform(0, 2 * np.pi, 4)), np.sin(a)], 1)

    def bend(points: Points) -> Points:
        bent = points.copy()
        for (k, phase), shift in zip(waves, shifts, strict=True):
            bent += np.sin(points @ k + phase)[:, None] * shift
        return bent

    return bend


def _split(
    cells: list[Cell], limit_m2: float, width_m: float, rng: np.random.Generator
) -> tuple[list[Cell], list[Cut]]:
    """Halve cells until none is over about ``limit_m2``; the small cells and the cuts made."""
    done: list[Cell] = []
    cuts: list[Cut] = []
    while cells:
        cell = cells.pop()
        if area(cell.corners) < limit_m2 * rng.uniform(0.8, 1.25):
            done.append(cell)
            continue
        left, right, cut = cell.halve(rng, width_m)
        cuts.append((cut, width_m))
        cells += [left, right]
    return done, cuts


def _uses(cells: list[Cell], bend: Callable[[Points], Points], size_m: float, rng: np.random.Generator) -> list[str]:
    """One use per cell: the roomiest inner cell for sports, civic uses in the middle, work and flats around."""
    middles = bend(np.array([c.corners.mean(0) for c in cells]))
    off = np.abs(middles - size_m / 2).max(1)
    order = [i for i in np.argsort(off) if off[i] < size_m / 2]
    uses = [str(rng.choice(DWELLINGS)) for _ in cells]
    inner = [i for i in order if off[i] < 0.38 * size_m]
    if len(inner) > 4:
        sports = max(inner[2:], key=lambda i: fit(cells[i].corners)[1].half_v)
        uses[sports] = "sports"
        order.remove(sports)
    central = sorted(order[: len(CENTRAL)], key=lambda i: area(cells[i].corners))
    for i, use in zip(central, CENTRAL, strict=False):
        uses[i] = use
    rest = order[len(CENTRAL) :]
    for i, use in zip(rng.permutation(rest)[: max(0, int(0.66 * len(rest)))], OUTER, strict=False):
        uses[i] = use
    return uses


def plan(rng: np.random.Generator, size_m: float) -> Layout:
    """Draw up a town for a square map of ``size_m`` metres; it reaches a little over the edges."""
    bend = _warp(rng)
    angle, middle = rng.uniform(-0.5, 0.5), np.full(2, size_m / 2)
    u, v = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    reach = 0.68 * size_m + 30
    square = Cell(middle + reach * np.array([-u - v, u - v, u + v, v - u]), (0.0,) * 4)
    wide = ARTERIAL_M / 2 + 2.5
    cuts: list[Cut] = []

    bypass = middle + u * size_m * rng.uniform(0.27, 0.31) * rng.choice([-1, 1])
    *sides, cut = square.cut(bypass, v, wide)
    cuts.append((cut, ARTERIAL_M))
    town, country = sorted(sides, key=lambda c: -area(c.corners))
    left, right, cut = town.cut(middle + u * size_m * rng.uniform(-0.12, 0.12), v + 0.12 * u, wide)
    cuts.append((cut, ARTERIAL_M))

    towns: list[Cell] = []
    fields: list[Cell] = []
    spot = middle + v * size_m * rng.uniform(-0.12, 0.12)
    stream = u + rng.uniform(-0.25, 0.25) * v
    ends = []
    for cell, pieces in ((left, towns), (right, towns), (country, fields)):
        *halves, bank = cell.cut(spot, stream / np.hypot(*stream), RIVER_M / 2)
        pieces += halves
        ends += list(bank)
    order = np.argsort([e @ stream for e in ends])
    river = np.array([ends[order[0]], ends[order[-1]]])

    coarse, more = _split(towns, 21_000, COLLECTOR_M, rng)
    uses = _uses(coarse, bend, size_m, rng)
    cells = [(c, use) for c, use in zip(coarse, uses, strict=True) if use not in DWELLINGS]
    streets: list[Cut] = []
    for cell, use in zip(coarse, uses, strict=True):
        if use in DWELLINGS:
            small, lanes = _split([cell], 6_000, STREET_M, rng)
            streets += lanes
            cells += [(c, use) for c in small]
    acres, tracks = _split(fields, 16_000, 3.5, rng)
    cells += [(c, "field") for c in acres]

    layout = Layout(bend(densify(river)))
    layout.roads = [Road(bend(densify(line)), width) for line, width in cuts]
    for line, width in [*more, *streets, *tracks]:  # these stop at the river
        path = bend(densify(line))
        gaps = np.hypot(*(path[:, None] - layout.river[None]).transpose(2, 0, 1)).min(1)
        path = path[gaps > RIVER_M / 2 + width]
        if len(path) > 4:
            layout.roads.append(Road(path, width))
    for cell, use in cells:
        corners = cell.inset()
        if len(corners) > 2 and area(corners) > 300:
            layout.blocks.append(Block(bend(densify(np.concatenate([corners, corners[:1]]))[:-1]), use))
    return layout
