import numpy as np
import pytest

from service.ground.pyramid import Cutter, decode, encode, join, over


def rgba(image, alpha=255):
    pixels = np.asarray(image.convert("RGB"))
    return np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)])


@pytest.fixture
def tile(ground):
    return rgba(ground(1, 256, 256))


def test_a_stored_tile_is_nearly_the_same(tile):
    again = decode(encode(tile))
    assert np.abs(again.astype(int) - tile).mean() < 2
    assert encode(tile)[8:12] == b"WEBP"


def test_where_the_map_shows_nothing_is_kept_exactly(tile):
    hole = tile.copy()
    hole[100:, 37:200] = 0
    again = decode(encode(hole))
    np.testing.assert_array_equal(again[..., 3] >= 128, hole[..., 3] >= 128)


def test_a_coarser_tile_is_the_mean_of_what_there_is(tile):
    four = [tile, None, tile[::-1].copy(), None]
    joined = join(four)
    np.testing.assert_array_equal(joined[:, 128:, 3], 0)
    expected = tile[..., :3].astype(float).reshape(128, 2, 128, 2, 3).mean((1, 3))
    np.testing.assert_allclose(joined[:128, :128, :3], expected, atol=0.51)
    assert join([None] * 4) is None


def test_the_edge_of_a_map_does_not_darken(tile):
    half = tile.copy()
    half[:, 101:] = 0  # cuts through a pixel of the coarser tile
    joined = join([half, None, None, None])
    # its pixels are half there: bytes that are multiplied by their alpha keep 7 bits
    np.testing.assert_allclose(joined[:128, 50, :3], tile[:, 100, :3].reshape(128, 2, 3).mean(1), atol=2)
    assert joined[0, 50, 3] == 128


def test_new_pixels_lie_over_old_ones(tile, ground):
    old = rgba(ground(2, 256, 256))
    new = tile.copy()
    new[:, :99, 3] = 0
    np.testing.assert_array_equal(over(new, old)[:, 99:], tile[:, 99:])
    np.testing.assert_array_equal(over(new, old)[:, :99], old[:, :99])


def test_a_rectangle_is_cut_across_tiles_and_the_antimeridian(ground):
    """Two tiles at the end of the world's row and one at its beginning; the others are not there."""
    whole = rgba(ground(3, 768, 256))
    parts = {(2, 2, 1): whole[:, :256], (2, 3, 1): whole[:, 256:512], (2, 0, 1): whole[:, 512:]}
    asked = []

    def read(zoom, x, y):
        asked.append((zoom, x, y))
        return encode(parts[zoom, x, y]) if (zoom, x, y) in parts else None

    cutter = Cutter(read)
    rgb, valid = cutter.cut(2, 2 * 256 + 100, 256 - 10, 560, 200)
    assert valid[10:].all()
    assert not valid[:10].any()
    assert not rgb[:10].any()
    assert np.abs(rgb[10:].astype(int) - whole[:190, 100:660, :3]).mean() < 2
    cutter.cut(2, 2 * 256, 256, 10, 10)
    assert len(asked) == len(set(asked))  # what was read is kept at hand
