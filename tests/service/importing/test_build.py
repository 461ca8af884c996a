"""Windows cut from stored pixels: which are embedded, which only described, and which left out."""

import numpy as np
import pytest

from service.ground.pyramid import Cutter, encode
from service.ground.windows import Lattice, Rectangle, cells_of
from service.importing.build import cut_windows, is_flat
from service.importing.plan import PlanPiece

LATTICE = Lattice(32)
PIECE = PlanPiece("embed", 16, Rectangle(0, 0, 15, 15), 0)  # of a single tile


def cut(ground, alpha, overlap=True, blocks=True, image=None):
    tile = np.dstack([np.asarray(image or ground(1, 256, 256)), alpha]).astype(np.uint8)
    stored = Cutter(lambda zoom, x, y: encode(tile) if (zoom, x, y) == (16, 0, 0) else None)
    return cut_windows(PIECE, 3, stored, LATTICE, overlap, blocks)


def test_a_full_map_gives_every_window(ground):
    windows = cut(ground, np.full((256, 256), 255))
    assert len(windows.cuts) == 15 * 15
    assert (windows.empty, windows.flat) == (0, 0)
    assert all(each.searched and each.described and each.pixels.shape == (32, 32, 3) for each in windows.cuts)


def test_windows_are_searched_when_most_is_there_and_described_when_their_middle_is(ground):
    alpha = np.zeros((256, 256))
    alpha[:, :70] = 255
    windows = cut(ground, alpha)
    _, columns = cells_of(np.array([each.key for each in windows.cuts]))
    searched = {int(c) for c, each in zip(columns, windows.cuts, strict=True) if each.searched}
    described = {int(c) for c, each in zip(columns, windows.cuts, strict=True) if each.described}
    share = [np.clip((70 - 16 * c) / 32, 0, 1) for c in range(15)]
    middle = [np.clip((70 - 16 * c - 8) / 16, 0, 1) for c in range(15)]
    assert searched == {c for c in range(15) if share[c] >= 0.5}
    assert described == {c for c in range(15) if middle[c] >= 0.5}
    assert windows.empty == 15 * (15 - len(searched))
    assert not any(each.described for each in cut(ground, alpha, blocks=False).cuts)


def test_without_overlap_every_other_window_is_searched_and_all_are_described(ground):
    windows = cut(ground, np.full((256, 256), 255), overlap=False)
    assert sum(each.searched for each in windows.cuts) == 8 * 8
    assert sum(each.described for each in windows.cuts) == 15 * 15


def test_windows_of_one_colour_are_left_out(ground):
    image = ground(1, 256, 256)
    image.paste((250, 250, 250), (0, 0, 256, 128))
    windows = cut(ground, np.full((256, 256), 255), image=image)
    assert 15 * 6 <= windows.flat <= 15 * 7  # compression lets a little of the seam into the last row
    assert len(windows.cuts) == 15 * 15 - windows.flat


@pytest.mark.parametrize(("spread", "flat"), [(0.5, True), (6.0, False)])
def test_noise_alone_is_no_contrast(spread, flat):
    noise = np.random.default_rng(0).normal(120, spread, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert is_flat(noise, np.ones((64, 64), bool)) is flat
