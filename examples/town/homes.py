"""Blocks that people live in: parcels with houses and gardens, terraces, flats, the old town."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from town import buildings as build
from town import green
from town.canvas import Canvas, Colour, Material, Points, vary
from town.shapes import Frame, area, beside, blob, clip, disc, fit, inside, walk

POOL: Colour = (96, 160, 176)
TERRACE: list[Colour] = [(164, 156, 142), (150, 142, 132), (148, 118, 98), (176, 170, 160)]


@dataclass(frozen=True)
class Style:
    """How a quarter builds: lot width, house size in metres, eaves, roofing, share of trees and pools."""

    lot_m: float
    length_m: tuple[float, float]
    depth_m: tuple[float, float]
    eaves_m: float
    roofs: list[Colour]
    trees: float
    pools: float


STYLES = {
    "villas": Style(21, (13, 18), (10, 13), 5.5, [*build.SLATE, build.TILES[3]], 5.0, 0.45),
    "houses": Style(14.5, (9.5, 13), (8.5, 11), 4.0, [*build.TILES, build.SLATE[1]], 3.4, 0.12),
    "bungalows": Style(17, (13, 17), (8.5, 11), 3.0, [*build.SHINGLE, build.SLATE[2]], 2.4, 0.25),
}


def _lots(outline: Points, frame: Frame, lot_m: float, rng: np.random.Generator) -> list[tuple[Points, int]]:
    """Cut a block into lots, back to back along its long axis; each with the side (±1) its street is on."""
    lots: list[tuple[Points, int]] = []
    deep = frame.half_v > 14
    for side in (-1, 1) if deep else (1,):
        u = -frame.half_u
        while u < frame.half_u - 4:
            step = min(lot_m * rng.uniform(0.85, 1.25), frame.half_u - u)
            step = frame.half_u - u if frame.half_u - u - step < 0.6 * lot_m else step
            along = frame.at(1, 0) - frame.at(0, 0)
            lot = clip(clip(outline, frame.at(u, 0), along), frame.at(u + step, 0), -along)
            if deep and len(lot) > 2:
                lot = clip(lot, frame.at(0, 0), side * (frame.at(0, 1) - frame.at(0, 0)))
            if len(lot) > 2 and area(lot) > 110:
                lots.append((lot, side))
            u += step
    return lots


def _lot_frame(lot: Points, frame: Frame, side: int) -> Frame:
    """The lot's own frame: u along its street, v from the garden to the street."""
    uv = frame.local(lot)
    low, high = uv.min(0), uv.max(0)
    front = uv[:, 1] * side >= (high[1] if side > 0 else -low[1]) - 4.0
    slope = np.polyfit(uv[front, 0], uv[front, 1], 1)[0] if np.ptp(uv[front, 0]) > 3 else 0.0
    middle = (low + high) / 2
    turn = float(np.arctan(slope)) + (0.0 if side > 0 else np.pi)
    return Frame(frame.at(*middle), frame.angle + turn, float(high[0] - low[0]) / 2, float(high[1] - low[1]) / 2)


def _garden(canvas: Canvas, rng: np.random.Generator, lot: Points, frame: Frame, back: float, style: Style) -> None:
    """What lies behind a house; ``back`` is where its rear wall is (v, metres)."""
    terrace = frame.sub(rng.uniform(-2, 2), back - 1.6, rng.uniform(4, 8), 3.2)
    canvas.fill(terrace.rect(), vary(rng, TERRACE[rng.integers(len(TERRACE))]), Material.PAVING)
    room = back + frame.half_v
    u = rng.uniform(-0.5, 0.5) * frame.half_u
    if room > 9 and rng.random() < style.pools:
        middle = frame.at(u, back - 0.55 * room)
        pool = frame.sub(u, back - 0.55 * room, rng.uniform(6, 9), rng.uniform(3, 4.5))
        round_pool = rng.random() < 0.35
        rim, water = (disc(middle, 3.4), disc(middle, 2.6)) if round_pool else (pool.rect(), pool.rect())
        if canvas.free(rim):
            canvas.fill(rim, (186, 180, 168), Material.PAVING, take=True)
            inner = water if round_pool else Frame(pool.centre, pool.angle, pool.half_u - 0.7, pool.half_v - 0.7).rect()
            canvas.fill(inner, vary(rng, POOL, 6), Material.WATER)
    elif room > 7 and rng.random() < 0.35:
        bed = frame.sub(u, back - 0.7 * room, rng.uniform(3, 7), rng.uniform(2, 4))
        canvas.fill(
            bed.rect(), vary(rng, (104, 90, 66)), Material.SOIL, texture=green.furrows(bed.angle, 1.2, 0.12, rng)
        )
    if rng.random() < 0.5:
        shed = frame.sub(rng.choice([-1, 1]) * (frame.half_u - 2.6), -frame.half_v + 2.6, 3.2, 2.4)
        if canvas.free(shed.rect()):
            build.pitched(canvas, shed, 2.0, 0.4, vary(rng, build.SHINGLE[rng.integers(4)]))
    for _ in range(rng.poisson(style.trees)):
        spot = frame.at(rng.uniform(-0.9, 0.9) * frame.half_u, rng.uniform(-0.95, 0.9) * frame.half_v)
        green.tree(canvas, rng, spot, rng.gamma(8, 0.34))


def _parcel(canvas: Canvas, rng: np.random.Generator, lot: Points, frame: Frame, style: Style, roof: Colour) -> None:
    """One lot: ground, drive, house, garage, garden and its hedge."""
    ground = vary(rng, green.LAWNS[rng.integers(len(green.LAWNS))], 6)
    canvas.fill(lot, ground, Material.GRASS)
    length = min(rng.uniform(*style.length_m), 2 * frame.half_u - 3.5)
    depth = min(rng.uniform(*style.depth_m), 2 * frame.half_v - 5)
    if length < 5.5 or depth < 5.5:
        green.grove(canvas, rng, lot, per_ha=90, radius_m=2.6)
        return
    v = frame.half_v - rng.uniform(3.5, 6.5) - depth / 2
    slack = frame.half_u - length / 2 - 1
    u = rng.uniform(-1, 1) * max(0.0, slack - 1.5)
    home = frame.sub(u, v, length, depth, rng.normal(0, 0.02))
    drive_u = -np.sign(u) * (frame.half_u - 2.6) if slack > 2.5 else u + 0.3 * length
    drive = frame.rect(drive_u, frame.half_v - 3.2, 3.0, 9.0)
    canvas.fill(drive, vary(rng, TERRACE[rng.integers(len(TERRACE))], 10), Material.PAVING)
    canvas.fill(frame.rect(u, frame.half_v - 2, 1.2, 6), (160, 154, 142), Material.PAVING)
    if canvas.free(home.rect()):
        build.house(canvas, rng, home, vary(rng, roof, 7), style.eaves_m + rng.normal(0, 0.4))
    garage = frame.sub(drive_u, v + rng.uniform(-3, 1), 6.0, 3.4, np.pi / 2)
    if slack > 2.5 and rng.random() < 0.7 and canvas.free(garage.rect()):
        build.box(canvas, garage, 2.6, vary(rng, build.FLAT[rng.integers(len(build.FLAT))]))
    if rng.random() < 0.6:
        build.car(canvas, rng, frame.at(drive_u, frame.half_v - 3.0), frame.angle + np.pi / 2)
    _garden(canvas, rng, lot, frame, v - depth / 2, style)
    if rng.random() < 0.75:
        green.hedge(canvas, rng, np.concatenate([lot, lot[:1]])[: rng.integers(max(3, len(lot) // 2), len(lot) + 2)])


def houses(canvas: Canvas, rng: np.random.Generator, outline: Points, use: str) -> None:
    """A quarter of detached houses; neighbours mostly share one kind of roof."""
    style, (frame, _) = STYLES[use], fit(outline)
    common = style.roofs[rng.integers(len(style.roofs))]
    share = rng.uniform(0.45, 0.9)
    for lot, side in _lots(outline, frame, style.lot_m, rng):
        roof = common if rng.random() < share else style.roofs[rng.integers(len(style.roofs))]
        _parcel(canvas, rng, lot, _lot_frame(lot, frame, side), style, roof)


def _frontage(canvas: Canvas, outline: Points, width_m: float, depth_m: float, setback_m: float) -> list[Frame]:
    """Building plots side by side along the edge of a block, v pointing to the street; only where there is room."""
    ring = np.concatenate([outline, outline[:1]])
    sign = 1.0 if inside(outline, beside(ring, 1.0)[2:3])[0] else -1.0
    plots: list[Frame] = []
    for at, angle in walk(ring, width_m):
        inwards = sign * np.array([-np.sin(angle), np.cos(angle)])
        spot = Frame(
            at + inwards * (setback_m + depth_m / 2), angle if sign < 0 else angle + np.pi, width_m / 2, depth_m / 2
        )
        body = spot.rect(0, -1.5, 0.9 * width_m, depth_m - 3)
        apart = all(np.hypot(*(spot.centre - other.centre)) > 0.8 * width_m for other in plots)
        if apart and inside(outline, body).all() and canvas.free(spot.rect(0, 0, 0.7 * width_m, 0.8 * depth_m)):
            plots.append(spot)
    return plots


def rows(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Terraced houses along the streets: long roofs of many units, strip gardens behind."""
    canvas.fill(outline, vary(rng, green.LAWNS[1], 5), Material.GRASS)
    roof = [*build.TILES, *build.SLATE, *build.SHINGLE][rng.integers(11)]
    unit, depth, gap = rng.uniform(5.5, 7.0), rng.uniform(9, 10.5), int(rng.integers(4, 9))
    plots = [p for i, p in enumerate(_frontage(canvas, outline, unit, depth, 3.0)) if i % gap]
    for plot in plots:
        yard = plot.rect(0, -depth / 2 - 5, unit - 0.5, 10)
        canvas.fill(yard, vary(rng, green.LAWNS[rng.integers(5)], 8), Material.GRASS)
        canvas.fill(
            plot.rect(0, -depth / 2 - 1.4, unit - 1, 2.4), vary(rng, TERRACE[rng.integers(4)], 12), Material.PAVING
        )
        fence = plot.points([(unit / 2, -depth / 2), (unit / 2, -depth / 2 - 10)])
        canvas.fill(fence, (96, 98, 70), Material.TREE, width_m=0.6, z=1.6)
        canvas.fill(plot.rect(1, depth / 2 + 2, 2.4, 4), vary(rng, TERRACE[rng.integers(4)], 12), Material.PAVING)
    for i, plot in enumerate(plots):
        home = plot.sub(0, 0.8 * (i // gap % 2), unit + 0.1, depth) if unit > depth else plot
        build.pitched(canvas, home, 5.6, 0.6, vary(rng, roof, 7))
        build.box(canvas, plot.sub(0.4 * unit, 0.5, 0.9, 0.7), 9.4, (112, 92, 82))
    for plot in plots:
        if rng.random() < 0.45:
            green.tree(canvas, rng, plot.at(rng.normal(0, 1), -depth / 2 - rng.uniform(4, 10)), rng.uniform(1.2, 2.8))
        if rng.random() < 0.25:
            hut = plot.sub(1, -depth / 2 - 8.5, 2.4, 2.0)
            if canvas.free(hut.rect()):
                build.box(canvas, hut, 2.2, vary(rng, (122, 110, 96), 14))
    green.grove(canvas, rng, outline, per_ha=40, radius_m=2.8)


def townhouses(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Tall fronts closed around the block, mixed roofs; what lies inside is left to the caller."""
    for plot in _frontage(canvas, outline, rng.uniform(11, 14), 12.0, 1.0):
        block = Frame(plot.centre, plot.angle, plot.half_u * 1.02, plot.half_v * rng.uniform(0.85, 1.05))
        if rng.random() < 0.3:
            build.flat(canvas, rng, block, rng.uniform(11, 16), vary(rng, build.FLAT[rng.integers(6)]))
        else:
            roof = [*build.TILES, *build.TILES, *build.SLATE, *build.SHINGLE][rng.integers(15)]
            build.pitched(canvas, block, rng.uniform(9, 13), rng.uniform(0.5, 0.7), vary(rng, roof, 8))
            build.chimney(canvas, rng, block, 18.0)


def courtyards(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A closed block of townhouses around gardens, sheds and parking in the yard."""
    canvas.fill(outline, vary(rng, (140, 134, 122), 5), Material.PAVING)
    townhouses(canvas, rng, outline)
    middle = outline.mean(0)
    for scale, tone in ((0.56, (150, 144, 132)), (0.5, (96, 106, 62))):
        canvas.fill(middle + scale * (outline - middle), vary(rng, tone, 5), Material.GRASS)
    for _ in range(14):
        spot = middle + 0.55 * (outline[rng.integers(len(outline))] - middle) * rng.uniform(0.3, 1)
        shed = Frame(spot, rng.uniform(0, 0.3), rng.uniform(2, 5), rng.uniform(1.5, 3))
        if canvas.free(shed.rect()):
            build.box(canvas, shed, 2.8, vary(rng, build.FLAT[rng.integers(6)]))
    green.grove(canvas, rng, middle + 0.6 * (outline - middle), per_ha=220, radius_m=3.2)


def apartments(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Slabs of flats on lawns, with paths, parking and a playground."""
    outer, frame = fit(outline)
    canvas.fill(outline, vary(rng, (104, 112, 66), 6), Material.GRASS)
    roof = vary(rng, build.FLAT[rng.integers(len(build.FLAT))])
    for v in np.arange(-outer.half_v + 9, outer.half_v - 6, rng.uniform(30, 36)):
        canvas.fill(frame.rect(0, v + 8.5, 2 * frame.half_u, 2.2), (166, 160, 148), Material.PAVING)
        u = -outer.half_u + 2
        while u < outer.half_u - 18:
            length = min(rng.uniform(24, 42), outer.half_u - u - 2)
            slab = frame.sub(u + length / 2, v, length, rng.uniform(10.5, 13))
            if inside(outline, slab.rect()).all() and canvas.free(slab.rect()):
                build.flat(canvas, rng, slab, rng.choice([9.0, 12.0, 15.0]), vary(rng, roof, 5))
            u += length + rng.uniform(8, 14)
        if rng.random() < 0.7:
            lot = frame.sub(rng.uniform(-0.3, 0.3) * frame.half_u, v + 18, min(46, frame.half_u), 6.2)
            if canvas.free(lot.rect()):
                build.car_park(canvas, rng, lot, 0.7)
    for spot in frame.points(rng.uniform(-0.8, 0.8, (12, 2)) * (frame.half_u, frame.half_v)):
        sand = blob(rng, spot, 6.0)
        if canvas.free(sand):
            canvas.fill(sand, (184, 170, 138), Material.SOIL, take=True)
            break
    green.grove(canvas, rng, outline, per_ha=130, radius_m=3.2)


def towers(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Point blocks around a round green, joined by curved paths."""
    outer, frame = fit(outline)
    canvas.fill(outline, vary(rng, (98, 110, 62), 5), Material.GRASS)
    middle, ring = frame.at(0, 0), min(frame.half_v, frame.half_u) * 0.62
    canvas.fill(disc(middle, ring), (160, 154, 142), Material.PAVING)
    canvas.fill(disc(middle, ring - 2.5), (92, 108, 60), Material.GRASS)
    for k, angle in enumerate(np.arange(0, 2 * np.pi, np.pi / 3) + rng.uniform(0, 1)):
        u, v = 1.15 * outer.half_u * 0.72 * np.cos(angle), 0.78 * outer.half_v * np.sin(angle)
        canvas.fill(frame.points([(0, 0), (u, v)]), (166, 160, 148), Material.PAVING, width_m=2.0)
        block = frame.sub(u, v, 19, 17, 0.4 * k)
        if canvas.free(block.rect()):
            build.flat(canvas, rng, block, rng.uniform(17, 23), vary(rng, build.FLAT[k % 4], 4))
    canvas.fill(disc(middle, 4.5), (188, 172, 138), Material.SOIL)
    lot = frame.sub(0, outer.half_v - 7, 1.2 * frame.half_u, 15)
    if canvas.free(lot.rect()):
        build.car_park(canvas, rng, lot, 0.8)
    green.grove(canvas, rng, outline, per_ha=110, radius_m=3.4)


def _chop(polygon: Points, limit_m2: float, rng: np.random.Generator) -> list[Points]:
    if len(polygon) < 3 or area(polygon) < limit_m2 * rng.uniform(0.7, 1.4):
        return [polygon] if len(polygon) > 2 else []
    frame, _ = fit(polygon)
    point = frame.at(rng.uniform(-0.2, 0.2) * frame.half_u, 0)
    normal = frame.at(1, rng.normal(0, 0.05)) - frame.at(0, 0)
    return _chop(clip(polygon, point, normal), limit_m2, rng) + _chop(clip(polygon, point, -normal), limit_m2, rng)


def old_town(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Tightly built plots of all heights and roofs around small yards, a church in their midst."""
    canvas.fill(outline, vary(rng, (146, 138, 126), 5), Material.PAVING)
    _, whole = fit(outline)
    nave = whole.sub(0, 0, 30, 12, rng.uniform(-0.2, 0.2))
    canvas.fill(whole.sub(0, 0, 46, 27, nave.angle - whole.angle).rect(), (158, 150, 136), Material.PAVING, take=True)
    build.pitched(canvas, nave, 9.0, 1.1, (112, 112, 110))
    build.pitched(canvas, nave.sub(4, 0, 22, 9, np.pi / 2), 8.0, 1.1, (108, 108, 107))
    tower = nave.sub(-16.5, 0, 7, 7)
    build.pitched(canvas, tower, 17.0, 1.6, (96, 122, 110), hip=1.0)
    for plot in _chop(outline, 260, rng):
        frame, core = fit(plot)
        if not canvas.free(Frame(core.centre, core.angle, 0.5 * core.half_u, 0.5 * core.half_v).rect()):
            continue
        half_u, half_v = 0.5 * (core.half_u + frame.half_u), 0.5 * (core.half_v + frame.half_v)
        block = Frame(core.centre, core.angle, half_u, half_v)
        if rng.random() < 0.1:
            green.grove(canvas, rng, plot, per_ha=200, radius_m=2.6)
        elif rng.random() < 0.3:
            build.flat(canvas, rng, block, rng.uniform(7, 13), vary(rng, build.FLAT[rng.integers(6)]))
        else:
            roof = [*build.TILES, *build.TILES, *build.SLATE, *build.SHINGLE][rng.integers(15)]
            build.pitched(
                canvas, block, rng.uniform(6, 11), rng.uniform(0.5, 0.8), vary(rng, roof, 8), rng.choice([0, 0, 0.9])
            )
            build.chimney(canvas, rng, block, 16.0)
