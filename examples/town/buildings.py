"""Buildings: pitched and flat roofs with what stands on them, and vehicles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from town.canvas import Canvas, Colour, Material, Paint, Points, vary
from town.shapes import Frame, disc

TILES: list[Colour] = [(150, 92, 68), (128, 80, 62), (166, 108, 80), (112, 74, 62)]
SLATE: list[Colour] = [(98, 100, 106), (82, 84, 90), (116, 114, 112)]
SHINGLE: list[Colour] = [(126, 112, 98), (144, 130, 112), (104, 96, 88), (136, 126, 118)]
FLAT: list[Colour] = [
    (168, 165, 158),
    (146, 144, 140),
    (188, 185, 178),
    (126, 122, 118),
    (156, 148, 136),
    (104, 102, 100),
]
SHEET: list[Colour] = [
    (196, 196, 192),
    (172, 176, 178),
    (142, 152, 160),
    (164, 160, 150),
    (122, 134, 128),
    (150, 106, 90),
]
CARS: list[Colour] = [
    (216, 216, 214),
    (188, 190, 192),
    (60, 62, 66),
    (40, 42, 46),
    (128, 130, 134),
    (212, 212, 208),
    (92, 94, 98),
    (120, 50, 46),
    (62, 76, 104),
]
LORRIES: list[Colour] = [(214, 214, 210), (92, 108, 130), (158, 72, 58), (196, 190, 176)]


def pitched(canvas: Canvas, frame: Frame, eaves_m: float, slope: float, colour: Colour, hip: float = 0.0) -> None:
    """A gable roof, ridge along u; ``hip`` 0–1 pulls the ridge's ends in to make it hipped."""
    ridge, half = eaves_m + slope * frame.half_v, frame.half_u - hip * frame.half_v
    a, b, c, d = frame.rect()
    e, f = frame.at(-half, 0), frame.at(half, 0)

    def raised(points: Sequence[Points], tops: Sequence[float]) -> Points:
        return np.column_stack([np.array(points), tops])

    canvas.face(raised([a, b, f, e], [eaves_m, eaves_m, ridge, ridge]), colour, 0.9)
    canvas.face(raised([c, d, e, f], [eaves_m, eaves_m, ridge, ridge]), colour, 0.9)
    if hip > 0:
        canvas.face(raised([b, c, f], [eaves_m, eaves_m, ridge]), colour, 0.9)
        canvas.face(raised([d, a, e], [eaves_m, eaves_m, ridge]), colour, 0.9)
    light = np.clip(np.asarray(colour) * 1.12, 0, 255)
    canvas.fill(np.array([e, f]), light, Material.ROOF, z=ridge + 0.05, width_m=0.3)


def box(canvas: Canvas, frame: Frame, top_m: float, colour: Paint) -> None:
    """A plain block: sheds, roof equipment, containers."""
    canvas.fill(frame.rect(), colour, Material.ROOF, z=top_m, take=True)


def chimney(canvas: Canvas, rng: np.random.Generator, frame: Frame, top_m: float) -> None:
    """A small stack near the ridge."""
    at = frame.sub(rng.uniform(-0.6, 0.6) * frame.half_u, rng.normal(0, 0.3), 0.9, 0.7)
    box(canvas, at, top_m, (112, 92, 82))


def solar(canvas: Canvas, frame: Frame, u: float, v: float, columns: int, z: float, rows: int = 2) -> None:
    """A field of dark panels of 1 × 1.7 m with light joints, lying at height z."""
    canvas.fill(frame.rect(u, v, columns * 1.05, rows * 1.75), (108, 114, 124), Material.ROOF, z=z)
    for i in range(columns):
        for j in range(rows):
            at = frame.rect(u + (i - columns / 2 + 0.5) * 1.05, v + (j - rows / 2 + 0.5) * 1.75, 0.9, 1.55)
            canvas.fill(at, (40, 48, 66), Material.ROOF, z=z)


def house(canvas: Canvas, rng: np.random.Generator, frame: Frame, colour: Colour, eaves_m: float) -> None:
    """A dwelling: gabled, hipped or with a cross wing, chimney, at times solar panels or a dormer."""
    slope, form = rng.uniform(0.5, 0.85), rng.random()
    ridge = eaves_m + slope * frame.half_v
    pitched(canvas, frame, eaves_m, slope, colour, hip=rng.uniform(0.6, 1.0) if form < 0.4 else 0.0)
    if form > 0.55 and frame.half_u > 5:
        wing = frame.sub(
            rng.choice([-0.45, 0.45]) * frame.half_u,
            rng.choice([-1, 1]) * frame.half_v * 0.55,
            frame.half_v * 1.9,
            frame.half_u * 0.85,
            np.pi / 2,
        )
        pitched(canvas, wing, eaves_m, slope * 0.9, colour, hip=0.0)
    chimney(canvas, rng, frame, ridge + 0.7)
    if rng.random() < 0.22:
        side = 0.5 * frame.half_v * (1 if np.cos(frame.angle) > 0 else -1)
        solar(canvas, frame, rng.uniform(-0.2, 0.2) * frame.half_u, side, int(frame.half_u), ridge)
    elif rng.random() < 0.3:
        box(canvas, frame.sub(rng.uniform(-0.4, 0.4) * frame.half_u, 0.5 * frame.half_v, 1.2, 0.9), ridge, (70, 78, 88))


def flat(canvas: Canvas, rng: np.random.Generator, frame: Frame, top_m: float, colour: Colour) -> None:
    """A flat roof with parapet, stains, a stair house, ventilation, skylights, at times solar panels."""
    canvas.fill(frame.rect(), np.clip(np.asarray(colour) * 1.13 + 6, 0, 255), Material.ROOF, z=top_m + 0.4, take=True)
    inner = Frame(frame.centre, frame.angle, frame.half_u - 0.5, frame.half_v - 0.5)
    canvas.fill(inner.rect(), colour, Material.ROOF, z=top_m + 0.4)
    for _ in range(rng.integers(0, 3)):  # repairs and stains
        u, v = rng.uniform(-0.6, 0.6, 2) * (frame.half_u, frame.half_v)
        size = rng.uniform(0.2, 0.7, 2) * (frame.half_u, frame.half_v)
        canvas.fill(frame.rect(u, v, *size), np.asarray(colour) * rng.uniform(0.86, 1.06), Material.ROOF, z=top_m + 0.4)
    if min(frame.half_u, frame.half_v) > 3.5:
        u, v = rng.uniform(-0.5, 0.5, 2) * (frame.half_u, frame.half_v)
        box(canvas, frame.sub(u, v, rng.uniform(3, 5), rng.uniform(2.4, 3.6)), top_m + 2.8, np.asarray(colour) * 1.05)
    for _ in range(int(frame.half_u * frame.half_v / 22) + 1):
        u, v = rng.uniform(-0.8, 0.8, 2) * (frame.half_u, frame.half_v)
        unit = frame.sub(u, v, rng.uniform(0.8, 2.2), rng.uniform(0.7, 1.6))
        box(canvas, unit, top_m + rng.uniform(0.9, 1.7), vary(rng, (170, 170, 168), 22))
    if frame.half_u > 8 and rng.random() < 0.35:
        for k in range(int(rng.integers(1, 4))):
            solar(canvas, frame, 0.3 * frame.half_u, (k - 1) * 4.5 * 0.8, int(frame.half_u * 0.6), top_m + 0.8, rows=1)


def hall(canvas: Canvas, rng: np.random.Generator, frame: Frame, eaves_m: float) -> None:
    """A big shed: sheet metal, low gable or saw teeth, with rooflights in rows."""
    colour, form = vary(rng, SHEET[rng.integers(len(SHEET))], 6), rng.random()
    if form < 0.4:
        pitched(canvas, frame, eaves_m, 0.16, colour)
        top = eaves_m + 0.16 * frame.half_v + 0.1
        for k in np.arange(-frame.half_u + 5, frame.half_u - 3, rng.uniform(6, 9)):
            for side in (-0.5, 0.5):
                light = frame.rect(k, side * frame.half_v, 1.4, 0.45 * frame.half_v)
                canvas.fill(light, (206, 210, 208), Material.ROOF, z=top)
    elif form < 0.65:
        teeth = max(2, round(2 * frame.half_u / 9))
        step = 2 * frame.half_u / teeth
        for k in range(teeth):
            u = -frame.half_u + (k + 0.5) * step
            corners = frame.rect(u, 0, step, 2 * frame.half_v)
            z = np.array([eaves_m + 2.6, eaves_m, eaves_m, eaves_m + 2.6])
            canvas.face(np.column_stack([corners, z]), colour)
            canvas.fill(corners[[0, 3]], (120, 132, 142), Material.ROOF, z=eaves_m + 2.7, width_m=0.8)
    else:
        flat(canvas, rng, frame, eaves_m, colour)
        for k in np.arange(-frame.half_u + 6, frame.half_u - 6, 9.0):
            dome = frame.rect(k, 0.4 * frame.half_v, 2.4, 1.4)
            canvas.fill(dome, (210, 216, 216), Material.ROOF, z=eaves_m + 0.9)


def tank(canvas: Canvas, rng: np.random.Generator, at: Points, radius_m: float) -> None:
    """A round storage tank with a rim."""
    height = rng.uniform(5, 9)
    canvas.fill(disc(at, radius_m), (150, 148, 142), Material.ROOF, z=height, take=True)
    canvas.fill(disc(at, radius_m - 0.5), vary(rng, (196, 194, 186), 6), Material.ROOF, z=height)


def car(canvas: Canvas, rng: np.random.Generator, at: Points, angle: float) -> None:
    """A car, or at times a van, with windows."""
    van = rng.random() < 0.12
    length, width, top = (5.6, 2.0, 2.2) if van else (rng.uniform(3.9, 4.7), 1.8, 1.1)
    body = Frame(at, angle, length / 2, width / 2)
    top += canvas.level(at)
    colour = vary(rng, CARS[rng.integers(len(CARS))], 6)
    canvas.fill(body.rect(), colour, Material.PAINT, z=top, take=True)
    if van:
        canvas.fill(body.rect(0.36 * length, 0, 0.6, 1.7), (46, 50, 56), Material.PAINT, z=top)
        return
    canvas.fill(body.rect(-0.06 * length, 0, 0.58 * length, 1.55), (44, 48, 54), Material.PAINT, z=top + 0.2)
    canvas.fill(body.rect(-0.08 * length, 0, 0.34 * length, 1.5), colour, Material.PAINT, z=top + 0.4)


def lorry(canvas: Canvas, rng: np.random.Generator, at: Points, angle: float) -> None:
    """A lorry: box body and cab."""
    body, base = Frame(at, angle, 6.0, 1.25), canvas.level(at)
    colour = vary(rng, LORRIES[rng.integers(len(LORRIES))], 6)
    box(canvas, body.sub(-1.0, 0, 9.6, 2.5), base + 3.8, colour)
    box(canvas, body.sub(4.9, 0, 2.4, 2.2), base + 3.0, vary(rng, (190, 190, 188), 25))


def car_park(canvas: Canvas, rng: np.random.Generator, frame: Frame, fullness: float = 0.65) -> None:
    """Asphalt with rows of marked bays, filled with cars to ``fullness``."""
    canvas.fill(frame.rect(), vary(rng, (112, 111, 109), 5), Material.ASPHALT, take=True)
    for v in np.arange(-frame.half_v + 3.0, frame.half_v - 2.0, 8.6):
        # bays face each other in pairs between aisles
        for u in np.arange(-frame.half_u + 1.5, frame.half_u - 1.2, 2.6):
            line = frame.points([(u - 1.3, v - 2.4), (u - 1.3, v + 2.4)])
            canvas.fill(line, (176, 176, 172), Material.PAINT, width_m=0.18)
            if rng.random() < fullness:
                flip = np.pi * (rng.random() < 0.4)
                car(canvas, rng, frame.at(u, v + rng.normal(0, 0.25)), frame.angle + np.pi / 2 + flip)
