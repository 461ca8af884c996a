"""River, roads, crossings, bridges and traffic."""

from __future__ import annotations

import numpy as np

from town.buildings import car, lorry
from town.canvas import Canvas, Colour, Material, Points, vary
from town.green import WATER, avenue, grove, tree
from town.layout import ARTERIAL_M, COLLECTOR_M, RIVER_M, STREET_M, Layout, Road
from town.shapes import Frame, area, beside, disc, walk

ASPHALT: Colour = (104, 103, 101)
PAVING: Colour = (150, 146, 138)
LINE: Colour = (196, 194, 186)
WATER_M = 21.0


def river(canvas: Canvas, rng: np.random.Generator, line: Points) -> None:
    """Grassy banks with a towpath, reeds and a stone edge, water between; trees come later (:func:`bankside`)."""
    canvas.fill(line, (94, 104, 60), Material.GRASS, width_m=RIVER_M + 6)
    for side in (-1, 1):
        canvas.fill(beside(line, side * 17.5), (164, 152, 126), Material.SOIL, width_m=2.2)
    canvas.fill(line, (120, 116, 96), Material.SOIL, width_m=WATER_M + 3, take=True)
    canvas.fill(line, (74, 82, 62), Material.GRASS, width_m=WATER_M + 1.2)
    canvas.fill(line, WATER, Material.WATER, width_m=WATER_M)
    for at, _ in walk(line, 9.0):
        canvas.fill(disc(at + rng.normal(0, 3, 2), rng.uniform(2, 5), 0.4), vary(rng, WATER, 2), Material.WATER)


def bankside(canvas: Canvas, rng: np.random.Generator, line: Points) -> None:
    """Bushes and tall trees along the water, in stretches."""
    for side in (-1, 1):
        path = beside(line, side * 14.0)
        for at, _ in walk(path, 5.0):
            if np.sin(at[0] / 31 + side) + np.sin(at[1] / 23) + rng.normal(0, 0.5) > 0.1:
                tree(canvas, rng, at + rng.normal(0, 1.4, 2), rng.uniform(1.6, 5.0))
        avenue(canvas, rng, beside(line, side * 20.5), rng.uniform(10, 14), 3.0)


def _worn(road: Road, tone: Colour) -> Colour:
    fade = 0 if road.width_m > COLLECTOR_M else 8
    return tone[0] + fade, tone[1] + fade, tone[2] + fade - 1


def roads(canvas: Canvas, rng: np.random.Generator, layout: Layout) -> None:
    """Pavements, then carriageways, junctions and markings, widest last; arterials cross the river on bridges."""
    for road in layout.roads:
        if road.width_m >= STREET_M:
            canvas.fill(road.line, vary(rng, PAVING, 5), Material.PAVING, width_m=road.width_m + 4, take=True)
    for road in sorted(layout.roads, key=lambda r: r.width_m):
        dirt = road.width_m < STREET_M
        tone = (158, 146, 118) if dirt else _worn(road, vary(rng, ASPHALT, 6))
        canvas.fill(road.line, tone, Material.SOIL if dirt else Material.ASPHALT, width_m=road.width_m, take=True)
        if not dirt:
            _wear(canvas, rng, road, tone)
    _bridges(canvas, rng, layout)
    for road in sorted(layout.roads, key=lambda r: r.width_m):
        if road.width_m >= STREET_M:
            for end, inner in ((road.line[0], road.line[3]), (road.line[-1], road.line[-4])):
                dead_end = bool(np.hypot(*(layout.river - end).T).min() < RIVER_M)
                _junction(canvas, rng, end, inner, road.width_m, dead_end)
    for road in layout.roads:
        _markings(canvas, road)


def _wear(canvas: Canvas, rng: np.random.Generator, road: Road, tone: Colour) -> None:
    """Polished wheel tracks and dark repair patches."""
    for offset in (-0.25, 0.25):
        track = beside(road.line, offset * road.width_m)
        canvas.fill(track, np.asarray(tone) * 0.96, Material.ASPHALT, width_m=0.28 * road.width_m)
    for at, angle in walk(road.line, 23.0, 8.0):
        if rng.random() < 0.45:
            patch = Frame(at, angle, rng.uniform(1, 6), rng.uniform(0.6, 1.6))
            shifted = patch.rect(0, rng.uniform(-0.3, 0.3) * road.width_m)
            canvas.fill(shifted, np.asarray(tone) * rng.uniform(0.82, 1.06), Material.ASPHALT)


def _markings(canvas: Canvas, road: Road) -> None:
    """Centre dashes; arterials also have edge lines and lane lines."""
    if road.width_m < COLLECTOR_M:
        return
    for at, angle in walk(road.line, 6.0, 13.0):
        canvas.fill(Frame(at, angle, 1.5, 0.1).rect(), LINE, Material.PAINT)
    if road.width_m >= ARTERIAL_M:
        for side in (-1, 1):
            canvas.fill(beside(road.line, side * (road.width_m / 2 - 0.6)), LINE, Material.PAINT, width_m=0.16)
            for at, angle in walk(beside(road.line, side * 3.5), 9.0, 13.0):
                canvas.fill(Frame(at, angle, 1.5, 0.08).rect(), LINE, Material.PAINT)


def _junction(
    canvas: Canvas, rng: np.random.Generator, end: Points, inner: Points, width_m: float, dead_end: bool
) -> None:
    """Plain asphalt where a road ends, in another or for turning; a stop line or a zebra before a joining one."""
    if not (0 < end[0] < canvas.size_m and 0 < end[1] < canvas.size_m):
        return
    tone = canvas.rgb[int(end[1] / canvas.gsd_m), int(end[0] / canvas.gsd_m)].astype(float)
    canvas.fill(disc(end, 0.62 * width_m + 1.5), tone, Material.ASPHALT, take=True)
    if dead_end:
        return
    step = inner - end
    frame = Frame(end, float(np.arctan2(step[1], step[0])), 0, 0)
    if width_m >= COLLECTOR_M and rng.random() < 0.8:
        for v in np.arange(-width_m / 2 + 0.9, width_m / 2 - 0.4, 1.2):
            canvas.fill(frame.rect(0.5 * width_m + 7.5, v, 3.4, 0.6), (206, 204, 198), Material.PAINT)
    else:
        canvas.fill(frame.rect(9.0, width_m / 4, 0.5, width_m / 2 - 0.6), (190, 188, 182), Material.PAINT)


def _bridges(canvas: Canvas, rng: np.random.Generator, layout: Layout) -> None:
    """Raise the roads over the water: deck, railings, and the height that casts the shadow."""
    near = WATER_M / 2 + 7
    for road in layout.roads:
        if road.width_m < COLLECTOR_M:
            continue
        gaps = np.hypot(*(road.line[:, None] - layout.river[None]).transpose(2, 0, 1)).min(1)
        deck = road.line[gaps < near]
        if len(deck) < 4 or gaps.min() > 4:
            continue
        canvas.fill(deck, (168, 164, 156), Material.PAVING, width_m=road.width_m + 5, z=2.6, take=True)
        canvas.fill(deck, vary(rng, (112, 110, 108), 4), Material.ASPHALT, width_m=road.width_m - 0.4, z=2.6)
        for side in (-1, 1):
            rail = beside(deck, side * (road.width_m + 4.4) / 2)
            canvas.fill(rail, (196, 194, 188), Material.PAVING, width_m=0.6, z=3.8)
    _footbridge(canvas, rng, layout.river)


def _footbridge(canvas: Canvas, rng: np.random.Generator, line: Points) -> None:
    """A narrow bridge from towpath to towpath, and a few moored boats."""
    spots = [(at, angle) for at, angle in walk(line, 20.0, 20.0) if canvas.level(at) == 0]
    if not spots:
        return
    at, angle = spots[int(rng.uniform(0.3, 0.7) * len(spots))]
    deck = Frame(at, angle + np.pi / 2, 19, 1.6)
    canvas.fill(deck.rect(), (150, 136, 116), Material.PAVING, z=2.2, take=True)
    for v in (-1.6, 1.6):
        canvas.fill(deck.rect(0, v, 38, 0.4), (190, 186, 176), Material.PAVING, z=3.2)
    for at, angle in walk(beside(line, rng.choice([-1, 1]) * (WATER_M / 2 - 2)), 13.0, 30.0):
        if rng.random() < 0.2 and canvas.level(at) == 0:
            boat = Frame(at, angle + rng.normal(0, 0.05), rng.uniform(3, 6), 1.3)
            canvas.fill(disc(at, boat.half_u, 0.35, angle), (206, 202, 192), Material.PAINT, z=1.2)
            canvas.fill(boat.rect(0, 0, boat.half_u, 1.4), vary(rng, (120, 104, 88), 18), Material.PAINT, z=1.6)


def traffic(canvas: Canvas, rng: np.random.Generator, layout: Layout) -> None:
    """Moving cars on wide roads, parked ones along streets, street trees on the pavements."""
    for road in layout.roads:
        if road.width_m < STREET_M:
            continue
        wide = road.width_m >= COLLECTOR_M
        lane = road.width_m * (0.25 if wide else 0.36)
        for side in (-1, 1):
            full = rng.uniform(0.1, 0.4) if wide else rng.uniform(0.1, 0.5)
            for at, angle in walk(beside(road.line, side * lane), 11.0 if wide else 6.5, 9.0):
                if rng.random() < full:
                    heading = angle + (np.pi if side < 0 else 0)
                    big = wide and rng.random() < 0.07
                    (lorry if big else car)(canvas, rng, at + rng.normal(0, 0.25, 2), heading)
            if road.width_m >= COLLECTOR_M and rng.random() < 0.6:
                _street_trees(canvas, rng, beside(road.line, side * (road.width_m / 2 + 1.4)))


def _street_trees(canvas: Canvas, rng: np.random.Generator, line: Points) -> None:
    radius, step = rng.uniform(2.0, 3.2), rng.uniform(8, 14)
    for at, _ in walk(line, step, 12.0):
        row, column = (int(v / canvas.gsd_m) for v in (at[1], at[0]))
        n = len(canvas.material)
        # the pavement is reserved ground, yet street trees stand in it: they only shun the carriageway and the water
        if 0 <= row < n and 0 <= column < n and canvas.material[row, column] == Material.PAVING and rng.random() < 0.85:
            canvas.taken[row, column] = False
            tree(canvas, rng, at, radius * rng.uniform(0.8, 1.15))
            canvas.taken[row, column] = True


def leftovers(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A few trees wherever a block has room left."""
    if area(outline) > 400:
        grove(canvas, rng, outline, per_ha=18, radius_m=2.8)
