"""Blocks with a public or working use: park, sports, school, shops, industry, gardens, fields."""

from __future__ import annotations

import numpy as np

from town import buildings as build
from town import green
from town.canvas import Canvas, Colour, Material, Points, vary
from town.homes import townhouses
from town.shapes import Frame, blob, clip, disc, fit, inside, walk

CROPS: list[Colour] = [(144, 130, 92), (112, 118, 76), (130, 110, 88), (162, 150, 110), (120, 124, 84), (98, 110, 72)]
CHALK: Colour = (206, 208, 200)
PATH: Colour = (178, 166, 142)


def _curve(ends: Points, bow_m: float) -> Points:
    """A path ``[25, 2]`` between two points, bent sideways by ``bow_m``."""
    t = np.linspace(0, 1, 25)[:, None]
    step = ends[1] - ends[0]
    side = np.array([-step[1], step[0]]) / max(float(np.hypot(*step)), 1e-9)
    return np.asarray(ends[0] + step * t + side * bow_m * (np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)))


def park(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Lawns, a pond, winding paths, groups of trees, a round of flower beds, a playground."""
    outer, frame = fit(outline)
    canvas.fill(outline, (88, 106, 56), Material.GRASS)
    for _ in range(4):
        spot = frame.points(rng.uniform(-0.8, 0.8, (1, 2)) * (frame.half_u, frame.half_v))[0]
        canvas.fill(blob(rng, spot, rng.uniform(10, 22)), vary(rng, (104, 116, 64), 6), Material.GRASS)
    u, v = 0.28 * frame.half_u * rng.choice([-1, 1]), 0.15 * frame.half_v
    middle = frame.at(-1.6 * u, -v)
    for k, angle in enumerate(rng.permutation(np.arange(0, 2 * np.pi, np.pi / 3)) + 0.4):
        gate = frame.at(1.1 * outer.half_u * np.cos(angle), 1.1 * outer.half_v * np.sin(angle))
        line = _curve(np.array([middle, gate]), rng.uniform(6, 14) * (-1) ** k)
        canvas.fill(line[inside(outline, line)], PATH, Material.SOIL, width_m=2.6, take=True)
    green.pond(canvas, blob(rng, frame.at(1.3 * u, v), 0.42 * frame.half_v + 4, 0.6))
    canvas.fill(disc(middle, 11), PATH, Material.SOIL, take=True)
    canvas.fill(disc(middle, 7.5), (86, 112, 58), Material.GRASS)
    for k, angle in enumerate(np.arange(0, 2 * np.pi, np.pi / 4)):
        bed = middle + 5.2 * np.array([np.cos(angle), np.sin(angle)])
        canvas.fill(disc(bed, 1.3), [(158, 76, 80), (176, 150, 82), (142, 108, 140)][k % 3], Material.TREE)
    build.pitched(canvas, Frame(middle, 0.3, 2.6, 2.6), 3.2, 0.7, (122, 92, 74), hip=1.0)
    sand = frame.at(0.2 * u, -0.6 * frame.half_v)
    canvas.fill(blob(rng, sand, 7), (194, 178, 142), Material.SOIL, take=True)
    for _ in range(6):
        toy = Frame(sand + rng.normal(0, 3, 2), rng.uniform(0, 3), 1.2, 0.8)
        build.box(canvas, toy, 1.8, vary(rng, (150, 92, 70), 20))
    green.grove(canvas, rng, outline, per_ha=150, radius_m=3.9)


def sports(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A running track around a striped pitch, a stand, tennis courts and a clubhouse where room is left."""
    outer, frame = fit(outline)
    canvas.fill(outline, vary(rng, (98, 112, 62), 4), Material.GRASS)
    straight, bend = 46.0, 30.0
    scale = min(1.0, (frame.half_u - 2) / (straight + bend), (frame.half_v - 2) / bend)
    straight, bend = straight * scale, bend * scale

    def oval(radius: float, side: float) -> Points:
        t = np.linspace(-np.pi / 2, np.pi / 2, 40)
        right = np.stack([side + radius * np.cos(t), radius * np.sin(t)], 1)
        return frame.points(np.concatenate([right, -right]))

    lane = 1.15
    canvas.fill(oval(bend, straight), vary(rng, (158, 92, 74), 5), Material.PAVING, take=True)
    for k in range(1, 7):
        ring = oval(bend - k * lane, straight)
        canvas.fill(np.concatenate([ring, ring[:1]]), (198, 160, 146), Material.PAINT, width_m=0.16)
    canvas.fill(oval(bend - 7 * lane, straight), (92, 112, 60), Material.GRASS)

    a, b = straight * 0.98, (bend - 7 * lane) * 0.92
    for k in range(12):
        mown = frame.rect(-a + (k + 0.5) * a / 6, 0, a / 6, 2 * b)
        canvas.fill(mown, (88, 114, 58) if k % 2 else (100, 124, 66), Material.GRASS)
    lines = [frame.rect(0, 0, 2 * a, 2 * b), disc(frame.at(0, 0), 0.28 * b), frame.rect(0, 0, 0.1, 2 * b)]
    lines += [frame.rect(s * 0.84 * a, 0, 0.32 * a, 1.2 * b) for s in (-1, 1)]
    for line in lines:
        canvas.fill(np.concatenate([line, line[:1]]), CHALK, Material.PAINT, width_m=0.2)
    for s in (-1, 1):
        canvas.fill(disc(frame.at(s * 0.78 * a, 0), 0.12 * b), (120, 116, 76), Material.GRASS)
    _beside_track(canvas, rng, frame, outer, bend)
    green.grove(canvas, rng, outline, per_ha=60, radius_m=3.4)


def _beside_track(canvas: Canvas, rng: np.random.Generator, frame: Frame, outer: Frame, bend: float) -> None:
    stand = frame.sub(0, -bend - 5, 44, 8)
    if canvas.free(stand.rect()):
        build.box(canvas, stand, 5.0, (176, 178, 180))
        for k in range(5):
            canvas.fill(frame.rect(0, -bend - 2 - k * 1.4, 43, 0.5), (112, 122, 138), Material.ROOF, z=5.0)
    court = 0
    for v in (bend + 10.5, -bend - 12.5):
        for u in np.arange(-outer.half_u + 22, outer.half_u - 20, 39.0):
            if canvas.free(frame.rect(u, v, 37, 18.5)) and court < 4:
                tone: Colour = [(150, 96, 76), (84, 118, 104), (92, 112, 138), (150, 96, 76)][court]
                canvas.fill(frame.rect(u, v, 36, 18), vary(rng, tone, 4), Material.PAVING, take=True)
                for part in (frame.rect(u, v, 23.8, 11), frame.rect(u, v, 23.8, 8.2), frame.rect(u, v, 12.8, 8.2)):
                    canvas.fill(np.concatenate([part, part[:1]]), CHALK, Material.PAINT, width_m=0.16)
                court += 1


def school(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A long building with wings around a paved yard, a small pitch with coloured ground."""
    _, frame = fit(outline)
    canvas.fill(outline, vary(rng, (102, 112, 66), 5), Material.GRASS)
    a, b = frame.half_u, frame.half_v
    yard = frame.sub(-0.25 * a, 0.05 * b, 1.1 * a, 1.1 * b)
    canvas.fill(yard.rect(), (148, 142, 134), Material.PAVING)
    for spot, colour in ((-0.5, (152, 104, 84)), (0.1, (96, 118, 132)), (0.5, (170, 150, 96))):
        canvas.fill(disc(yard.at(spot * yard.half_u, 0.3 * yard.half_v), 3.2), colour, Material.PAVING)
    roof = vary(rng, build.FLAT[rng.integers(6)])
    wings = [
        (-0.25 * a, -0.72 * b, 1.3 * a, 13),
        (-0.78 * a, -0.1 * b, 12, 1.0 * b),
        (0.28 * a, -0.28 * b, 12, 0.7 * b),
    ]
    for u, v, length, width in wings:
        build.flat(canvas, rng, frame.sub(u, v, length, width), 8.0, vary(rng, roof, 4))
    gym = frame.sub(0.72 * a, -0.6 * b, 24, 17)
    build.pitched(canvas, gym, 7.5, 0.25, vary(rng, build.SHEET[2], 5))
    pitch = frame.sub(0.62 * a, 0.45 * b, 0.62 * a, 0.85 * b)
    canvas.fill(pitch.rect(), (112, 132, 96), Material.PAVING, take=True)
    inner = Frame(pitch.centre, pitch.angle, pitch.half_u - 2, pitch.half_v - 2)
    for line in (inner.rect(), disc(inner.centre, 3.5), inner.rect(0, 0, 0.1, 2 * inner.half_v)):
        canvas.fill(np.concatenate([line, line[:1]]), CHALK, Material.PAINT, width_m=0.2)
    lot = frame.sub(-0.35 * a, 0.9 * b, a, 6)
    if canvas.free(lot.rect()):
        build.car_park(canvas, rng, lot, 0.5)
    green.grove(canvas, rng, outline, per_ha=90, radius_m=3.4)


def retail(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A shopping hall behind a wide car park with lamp islands and small trees."""
    _, frame = fit(outline)
    canvas.fill(outline, (116, 114, 110), Material.ASPHALT)
    side = rng.choice([-1, 1])
    shop = frame.sub(0, side * 0.52 * frame.half_v, 1.8 * frame.half_u, 0.86 * frame.half_v)
    build.flat(canvas, rng, shop, 8.5, vary(rng, (186, 184, 178), 6))
    build.hall(canvas, rng, shop.sub(0.35 * shop.half_u, 0, 0.55 * shop.half_u, 1.5 * shop.half_v), 10.5)
    lot = frame.sub(0, -side * 0.45 * frame.half_v, 1.9 * frame.half_u, 0.95 * frame.half_v)
    build.car_park(canvas, rng, lot, 0.62)
    for u in np.arange(-lot.half_u + 9, lot.half_u - 5, 18.0):
        for v in np.arange(-lot.half_v + 7.3, lot.half_v, 17.2):
            row, column = (int(x / canvas.gsd_m) for x in lot.at(u, v)[::-1])
            if 0 <= row < len(canvas.taken) and 0 <= column < len(canvas.taken):
                canvas.taken[row, column] = False  # a planting island in the asphalt
                green.tree(canvas, rng, lot.at(u, v), 1.9, green.LEAVES[1])
    for k in range(3):
        build.lorry(canvas, rng, shop.at(-0.4 * shop.half_u + 9 * k, side * (shop.half_v + 8)), shop.angle + np.pi / 2)


def industry(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Big halls on concrete, with stacked containers, tanks, lorries and bare ground."""
    _, frame = fit(outline)
    canvas.fill(outline, vary(rng, (148, 144, 136), 5), Material.PAVING)
    for _ in range(7):
        spot = frame.points(rng.uniform(-1, 1, (1, 2)) * (frame.half_u, frame.half_v))[0]
        canvas.fill(blob(rng, spot, rng.uniform(5, 16)), vary(rng, (136, 128, 114), 9), Material.SOIL)
    cut = rng.uniform(-0.2, 0.2)
    halls = [
        (0.5 * (cut - 1), rng.uniform(-0.15, 0.15), 0.9 * (1 + cut), 1.45),
        (0.5 * (cut + 1), -0.5, 0.85 * (1 - cut), 0.75),
        (0.5 * (cut + 1) + 0.1, 0.62, 0.5 * (1 - cut), 0.5),
    ]
    for u, v, length, width in halls:
        shed = frame.sub(u * frame.half_u, v * frame.half_v, length * frame.half_u, width * frame.half_v)
        if canvas.free(Frame(shed.centre, shed.angle, shed.half_u * 0.9, shed.half_v * 0.9).rect()):
            build.hall(canvas, rng, shed, rng.uniform(7, 11))
    for _ in range(4):
        spot = frame.points(rng.uniform(-0.9, 0.9, (1, 2)) * (frame.half_u, frame.half_v))[0]
        if canvas.free(disc(spot, 6)):
            build.tank(canvas, rng, spot, rng.uniform(3, 5.5))
    for _ in range(110):
        spot = frame.points(rng.uniform(-0.95, 0.95, (1, 2)) * (frame.half_u, frame.half_v))[0]
        crate = Frame(spot, frame.angle + np.pi / 2 * rng.integers(2), 3.05, 1.2)
        if canvas.free(Frame(spot, crate.angle, 4, 2).rect()):
            kind = rng.random()
            if kind < 0.6:
                tones: list[Colour] = [(132, 70, 58), (74, 92, 116), (150, 148, 142), (96, 108, 84), (156, 120, 74)]
                build.box(canvas, crate, 2.6 * rng.integers(1, 3), vary(rng, tones[rng.integers(5)], 8))
            elif kind < 0.8:
                build.lorry(canvas, rng, spot, crate.angle)
            else:
                build.car(canvas, rng, spot, crate.angle)
    green.avenue(canvas, rng, np.concatenate([outline, outline[:1]]), 11.0, 2.6)


def allotments(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Small garden plots with huts, beds and fruit trees along narrow paths."""
    outer, frame = fit(outline)
    canvas.fill(outline, (138, 132, 104), Material.GRASS)
    for u in np.arange(-outer.half_u + 6, outer.half_u - 3, 11.5):
        for v in np.arange(-outer.half_v + 9, outer.half_v - 6, 18.5):
            plot = frame.sub(u, v, 10.2, 16.6)
            if not canvas.free(plot.rect()):
                continue
            canvas.fill(plot.rect(), vary(rng, green.LAWNS[rng.integers(5)], 9), Material.GRASS)
            for k in range(rng.integers(1, 4)):
                bed = plot.sub(-4 + 4.6 * k, rng.uniform(-2, 2), rng.uniform(3, 4.4), rng.uniform(3, 6))
                tone = [(112, 94, 70), (84, 100, 54), (126, 112, 76), (138, 100, 92)][rng.integers(4)]
                rows = green.furrows(plot.angle, 1.1, 0.14, rng)
                canvas.fill(bed.rect(), vary(rng, tone, 7), Material.SOIL, texture=rows)
            hut = plot.sub(rng.uniform(4, 6), rng.uniform(-2, 2), 4.2, 3.2)
            build.pitched(canvas, hut, 2.2, 0.4, vary(rng, [*build.SHINGLE, *build.TILES][rng.integers(8)], 12))
            for _ in range(rng.integers(0, 4)):
                green.tree(canvas, rng, plot.at(*rng.uniform(-0.9, 0.9, 2) * (8, 5)), rng.uniform(1.0, 2.2))
            green.hedge(canvas, rng, plot.rect()[:3], 1.2)
    green.grove(canvas, rng, outline, per_ha=30, radius_m=2.4)


def orchard(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Fruit trees in straight rows on mown grass, one barn."""
    outer, frame = fit(outline)
    canvas.fill(outline, (116, 122, 72), Material.GRASS, texture=green.furrows(frame.angle + np.pi / 2, 6.0, 0.07, rng))
    barn = frame.sub(-0.6 * frame.half_u, -0.6 * frame.half_v, 22, 12)
    canvas.fill(barn.sub(0, 0, 34, 24).rect(), (164, 150, 124), Material.SOIL, take=True)
    build.pitched(canvas, barn, 5.0, 0.6, (120, 78, 64))
    for v in np.arange(-outer.half_v + 3, outer.half_v - 2, 6.0):
        for u in np.arange(-outer.half_u + 3, outer.half_u - 2, 5.0):
            spot = frame.at(u, v)
            if rng.random() < 0.93 and inside(outline, spot[None])[0]:
                green.tree(canvas, rng, spot + rng.normal(0, 0.25, 2), rng.uniform(1.5, 2.1), green.LEAVES[4])


def site(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A building site: bare soil with wheel tracks, a pit, foundations, heaps, huts."""
    _, frame = fit(outline)
    canvas.fill(outline, vary(rng, (168, 148, 116), 5), Material.SOIL)
    for _ in range(16):
        ends = frame.points(rng.uniform(-1, 1, (2, 2)) * (frame.half_u, frame.half_v))
        canvas.fill(_curve(ends, rng.normal(0, 9)), vary(rng, (148, 130, 102), 8), Material.SOIL, width_m=2.6)
    for _ in range(6):
        spot = frame.points(rng.uniform(-0.9, 0.9, (1, 2)) * (frame.half_u, frame.half_v))[0]
        canvas.fill(blob(rng, spot, rng.uniform(3, 9)), vary(rng, (186, 168, 134), 7), Material.SOIL)
    raft = frame.sub(-0.3 * frame.half_u, 0, 0.9 * frame.half_u, 0.9 * frame.half_v)
    canvas.fill(raft.rect(), (172, 168, 160), Material.PAVING, z=0.8, take=True)
    for k in np.arange(-raft.half_u, raft.half_u, 6.5):
        wall = raft.points([(k, -raft.half_v), (k, raft.half_v * rng.uniform(-0.2, 1))])
        canvas.fill(wall, (150, 146, 140), Material.ROOF, z=3.2, width_m=0.5)
    shell = frame.sub(0.55 * frame.half_u, -0.2 * frame.half_v, 0.5 * frame.half_u, 0.6 * frame.half_v)
    build.flat(canvas, rng, shell, 11.0, (160, 156, 150))
    for k in range(5):
        build.box(
            canvas, frame.sub(0.3 * frame.half_u + 7 * k, 0.8 * frame.half_v, 6, 2.5), 2.6, vary(rng, (176, 178, 180))
        )
    for _ in range(4):
        spot = frame.points(rng.uniform(-0.8, 0.8, (1, 2)) * (frame.half_u, frame.half_v))[0]
        build.lorry(canvas, rng, spot, rng.uniform(0, 6.3))


def square(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """A market square: townhouses around patterned paving, town hall, fountain, stalls under trees."""
    outer, frame = fit(outline)
    canvas.fill(outline, (160, 152, 138), Material.PAVING)
    for v in np.arange(-outer.half_v, outer.half_v, 7.0):
        line = clip(outline, frame.at(0, v), frame.at(0, 1) - frame.at(0, 0))
        line = clip(line, frame.at(0, v + 0.6), frame.at(0, -1) - frame.at(0, 0)) if len(line) > 2 else line
        if len(line) > 2:
            canvas.fill(line, (140, 124, 108), Material.PAVING)
    townhouses(canvas, rng, outline)
    hall = frame.sub(0.5 * frame.half_u, 0, 16, 0.8 * frame.half_v)
    build.pitched(canvas, hall, 12.0, 0.9, build.SLATE[0], hip=0.8)
    build.pitched(canvas, hall.sub(0, 0, 14, 24, np.pi / 2), 13.0, 0.8, build.SLATE[0])
    build.pitched(canvas, Frame(hall.centre, hall.angle, 2.8, 2.8), 24.0, 1.8, (92, 126, 112), hip=1.0)
    spot = frame.at(-0.3 * frame.half_u, 0.05 * frame.half_v)
    for radius, tone in ((9.0, (176, 168, 154)), (5.5, (188, 184, 174)), (4.6, (84, 112, 116))):
        canvas.fill(disc(spot, radius), tone, Material.PAVING, take=True)
    for u, v in rng.uniform(-1, 1, (60, 2)) * (0.8 * frame.half_u, 0.7 * frame.half_v):
        stall = frame.sub(round(u / 5) * 5, round(v / 5.5) * 5.5, 3.4, 3.0)
        if canvas.free(Frame(stall.centre, stall.angle, 2.2, 2).rect()) and inside(outline, stall.rect()).all():
            tones: list[Colour] = [(200, 194, 182), (150, 82, 72), (180, 164, 116), (98, 116, 108)]
            build.pitched(canvas, stall, 2.4, 0.4, vary(rng, tones[rng.integers(4)], 6))
    for side in (-0.55, 0.6):
        line = frame.points([(-0.85 * frame.half_u, side * frame.half_v), (0.3 * frame.half_u, side * frame.half_v)])
        green.avenue(canvas, rng, line, 8.5, 2.5)


def field(canvas: Canvas, rng: np.random.Generator, outline: Points) -> None:
    """Crops in rows, a headland around them, a hedgerow with trees; some are meadow with bales."""
    _, frame = fit(outline)
    crop, turn = vary(rng, CROPS[rng.integers(len(CROPS))], 7), rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
    canvas.fill(outline, np.asarray(crop) * 0.93, Material.GRASS)
    middle = outline.mean(0)
    core = middle + (outline - middle) * (1 - 5.0 / max(frame.half_v, 12.0))
    rows = green.furrows(frame.angle + turn, rng.uniform(2.0, 4.0), rng.uniform(0.04, 0.12), rng)
    canvas.fill(core, crop, Material.SOIL, texture=rows)
    for _ in range(3):
        spot = middle + rng.normal(0, 0.3, 2) * frame.half_u
        if inside(core, spot[None])[0]:
            damp = np.asarray(crop) * rng.uniform(0.86, 1.1)
            patch = blob(rng, middle + 0.5 * (spot - middle), rng.uniform(6, 14), 0.5)
            canvas.fill(patch, damp, Material.SOIL, texture=rows)
    if rng.random() < 0.4:
        for u, v in rng.uniform(-0.7, 0.7, (18, 2)) * (frame.half_u, frame.half_v):
            canvas.fill(disc(frame.at(u, v), 0.9), (178, 160, 106), Material.ROOF, z=1.3)
    for at, _ in walk(np.concatenate([outline, outline[:1]])[: rng.integers(len(outline) // 3, len(outline))], 3.5):
        if rng.random() < 0.6:
            green.tree(canvas, rng, at + rng.normal(0, 1.0, 2), rng.gamma(5, 0.42))


BUILDERS = {
    "park": park,
    "sports": sports,
    "school": school,
    "retail": retail,
    "industry": industry,
    "allotments": allotments,
    "orchard": orchard,
    "site": site,
    "square": square,
    "field": field,
}
