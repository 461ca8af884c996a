"""The town depends on its seed alone, is in register with its heights, and varies from block to block."""

import numpy as np
import pytest
from PIL import Image

from town.canvas import SUN, SUN_ELEVATION_DEG, Canvas, Material
from town.layout import plan
from town.light import shadows
from town.shapes import Frame, area, clip, disc, fit, inside
from town.town import make_town

SIZE_M, GSD_M, BLOCK_M = 430.0, 0.5, 86.0


@pytest.fixture(scope="module")
def town():
    return make_town(3, SIZE_M, GSD_M)


def test_same_seed_same_picture_other_seed_another(town):
    again, other = make_town(3, SIZE_M, GSD_M), make_town(4, SIZE_M, GSD_M)
    assert np.array_equal(town.rgb, again.rgb)
    assert np.array_equal(town.height_m, again.height_m)
    assert np.abs(town.rgb.astype(float) - other.rgb).mean() > 15


def test_shapes_types_and_range(town):
    pixels = round(SIZE_M / GSD_M)
    assert town.rgb.shape == (pixels, pixels, 3)
    assert town.rgb.dtype == np.uint8
    assert town.height_m.shape == (pixels, pixels)
    assert town.height_m.dtype == np.float32
    assert town.height_m.min() >= 0
    assert 8 < town.height_m.max() < 60
    assert town.gsd_m == GSD_M


@pytest.mark.parametrize(("size_m", "gsd_m"), [(50.0, 0.3), (200.0, 0.01), (200.0, 5.0)])
def test_out_of_range_is_refused(size_m, gsd_m):
    with pytest.raises(ValueError, match="size_m must be"):
        make_town(0, size_m, gsd_m)


def test_heights_are_in_register_with_the_picture(town):
    """Walls are where colours change: the correlation of edges is highest without a shift."""

    def edges(field):
        gy, gx = np.gradient(field)
        strength = np.minimum(np.hypot(gx, gy), np.quantile(np.hypot(gx, gy), 0.99))
        return (strength - strength.mean()) / strength.std()

    grey, height = edges(town.rgb.astype(float).mean(-1)), edges(town.height_m.astype(float))
    fits = {
        s: float((np.roll(grey, s, (0, 1)) * height).mean()) for s in [(y, x) for y in (-4, 0, 4) for x in (-4, 0, 4)]
    }
    assert max(fits, key=fits.get) == (0, 0)
    assert fits[0, 0] > 0.2


def test_no_two_blocks_look_alike(town):
    """Every 86 m block differs from every other, also after the best change of brightness and contrast."""
    n, step = int(SIZE_M // BLOCK_M), round(BLOCK_M / GSD_M)
    blocks = []
    for i in range(n):
        for j in range(n):
            part = town.rgb[i * step : (i + 1) * step, j * step : (j + 1) * step]
            small = np.asarray(Image.fromarray(part).resize((24, 24), Image.Resampling.BOX), float).ravel()
            blocks.append((small - small.mean()) / small.std())
    alike = np.array(blocks) @ np.array(blocks).T / len(blocks[0])
    assert np.abs(alike - np.eye(len(blocks))).max() < 0.8


def test_plan_fills_the_map_without_overlap():
    layout = plan(np.random.default_rng(1), 620.0)
    spots = np.random.default_rng(0).uniform(0, 620.0, (800, 2))
    covered = sum(inside(b.outline, spots).astype(int) for b in layout.blocks)
    assert covered.max() == 1
    assert covered.mean() > 0.6  # the rest is roads and river
    uses = {b.use for b in layout.blocks}
    assert {"sports", "park", "old_town", "square", "retail", "industry", "field"} <= uses


def test_shadow_length_is_height_over_tangent():
    gsd_m, top_m, centre = 0.5, 12.0, 100
    height = np.zeros((201, 201), np.float32)
    height[centre, centre] = top_m
    rows, columns = np.nonzero(shadows(height, gsd_m) > 0)
    reach = np.hypot(rows - centre, columns - centre) * gsd_m
    assert reach.max() == pytest.approx(top_m / np.tan(np.radians(SUN_ELEVATION_DEG)), abs=1.0)
    tip = np.argmax(reach)
    away = np.array([columns[tip] - centre, rows[tip] - centre]) * gsd_m / reach[tip]
    assert away @ (SUN[:2] / np.hypot(*SUN[:2])) == pytest.approx(-1, abs=0.01)


def test_canvas_shows_what_is_highest():
    canvas = Canvas(10, 0.1, 100, (0, 0, 0))
    square = Frame(np.array([5.0, 5.0]), 0.0, 2.0, 2.0).rect()
    canvas.fill(square, (200, 0, 0), Material.ROOF, z=5.0, take=True)
    canvas.fill(square + 1.0, (0, 200, 0), Material.TREE, z=3.0)
    assert tuple(canvas.rgb[50, 50]) == (200, 0, 0)
    assert tuple(canvas.rgb[78, 78]) == (0, 200, 0)
    assert canvas.level(np.array([5.0, 5.0])) == 5.0
    assert not canvas.free(square)
    assert canvas.free(square + 4.2)


def test_plane_geometry():
    ring = disc(np.array([3.0, -2.0]), 10.0)
    assert area(ring) == pytest.approx(0.5 * 24 * 100 * np.sin(2 * np.pi / 24))  # regular 24-gon
    assert area(clip(ring, np.array([3.0, -2.0]), np.array([1.0, 0.0]))) == pytest.approx(area(ring) / 2)
    frame = Frame(np.array([7.0, 1.0]), 0.7, 20.0, 6.0)
    outer, inner = fit(frame.rect())
    assert outer.half_u == pytest.approx(20, rel=0.02)
    assert outer.half_v == pytest.approx(6, rel=0.12)
    assert inside(frame.rect(), inner.rect()).all()
    assert np.allclose(frame.local(frame.points([(3.0, 4.0)])), [(3.0, 4.0)])
