import math

import numpy as np
import pytest
import torch
from PIL import Image

from training.data import recipe
from training.data.recipe import augment_pair, coarse_holes, grid_holes, jitter, jpeg, to_tensor

SIDE = 40


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def geometry_only(monkeypatch):
    """No change of appearance, no holes."""
    monkeypatch.setattr(recipe, "_appearance", lambda image, _: image)
    monkeypatch.setattr(recipe, "_holes", lambda image, _: image)


def marked(row, col):
    """A black image with one white pixel."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[row, col] = 255
    return Image.fromarray(pixels)


def where(image):
    """Right and down of the white pixel from the image's centre."""
    row, col = divmod(int(image.sum(0).argmax()), SIDE)
    return [col + 0.5 - SIDE / 2, row + 0.5 - SIDE / 2]


@pytest.mark.parametrize("turns", ["tile", "both"])
@pytest.mark.parametrize("seed", range(12))
def test_the_offset_follows_the_pixel_it_means(geometry_only, seed, turns):
    tile = marked(6, 29)  # 9.5 px right of the centre and 13.5 px over it
    offset = torch.tensor([9.5, -13.5])
    images, moved = augment_pair(marked(3, 4), tile, offset, generator(seed), turns=turns)
    assert [tuple(image.shape) for image in images] == [(3, SIDE, SIDE)] * 2
    assert moved.tolist() == where(images[1])
    assert offset.tolist() == [9.5, -13.5]


def test_all_eight_ways_of_a_tile_occur_and_photos_are_only_mirrored(geometry_only):
    tiles, photos = set(), set()
    for seed in range(80):
        images, _ = augment_pair(marked(3, 4), marked(6, 29), torch.zeros(2), generator(seed), turns="tile")
        tiles.add(tuple(where(images[1])))
        photos.add(tuple(where(images[0])))
    assert len(tiles) == 8
    assert photos == {(-15.5, -16.5), (15.5, -16.5)}


def test_photo_and_tile_are_mirrored_together(geometry_only):
    for seed in range(20):
        images, _ = augment_pair(marked(0, 9), marked(0, 9), torch.zeros(2), generator(seed), turns="tile")
        mirrored = where(images[0])[0] > 0
        turned = [images[1].rot90(k, (1, 2)) for k in range(4)]
        assert any(torch.equal(image, images[0]) for image in turned), mirrored


def test_tiles_that_the_method_turns_are_only_mirrored(geometry_only):
    seen = set()
    for seed in range(40):
        images, moved = augment_pair(
            marked(3, 4), marked(6, 29), torch.tensor([9.5, -13.5]), generator(seed), turns="none"
        )
        assert moved.tolist() == where(images[1])
        seen.add(tuple(where(images[1])))
    assert seen == {(9.5, -13.5), (-9.5, -13.5)}


@pytest.mark.parametrize("seed", range(4))
def test_panoramas_may_be_wider_than_tiles(seed):
    wide = noise(1).resize((2 * SIDE, SIDE))
    (panorama, tile), _ = augment_pair(wide, noise(2), torch.zeros(2), generator(seed), turns="both")
    assert panorama.shape == (3, SIDE, 2 * SIDE)
    assert tile.shape == (3, SIDE, SIDE)


def test_an_unknown_offset_stays_unknown():
    _, moved = augment_pair(marked(0, 0), marked(0, 0), torch.full((2,), math.nan), generator(), turns="tile")
    assert moved.isnan().all()


def compass(image, panorama):
    """Direction of the white pixel: by its column in a panorama, with north in the middle; by its angle in a tile."""
    right, down = where(image)
    return (right / SIDE * 360) % 360 if panorama else math.degrees(math.atan2(right, -down)) % 360


@pytest.mark.parametrize("heading_deg", [9.0, 135.0, 279.0])
def test_tile_and_panorama_turn_together(geometry_only, heading_deg):
    """Something that tile and panorama show in one direction is seen in one direction afterwards."""
    turned = set()
    for seed in range(40):
        right, down = 15 * math.sin(math.radians(heading_deg)), -15 * math.cos(math.radians(heading_deg))
        tile = marked(int(SIDE / 2 + down), int(SIDE / 2 + right))
        panorama = marked(20, int((heading_deg / 360 * SIDE + SIDE / 2) % SIDE))
        images, _ = augment_pair(panorama, tile, torch.zeros(2), generator(seed), turns="both")
        seen, shown = compass(images[0], True), compass(images[1], False)
        assert abs((seen - shown + 180) % 360 - 180) < 12
        turned.add(round(seen))
    assert len(turned) >= 5


def test_three_quarters_of_the_panoramas_are_turned_at_random(geometry_only):
    """By one of three turns, as the published code does: a quarter of the pairs stay, or are only mirrored."""
    turns = []
    for seed in range(400):
        images, _ = augment_pair(marked(3, 20), marked(0, 20), torch.zeros(2), generator(seed), turns="both")
        turns.append(round(where(images[0])[0] / (SIDE / 4)) % 4)
    counts = np.unique(turns, return_counts=True)[1]
    assert counts / 400 == pytest.approx(0.25, abs=0.06)


def noise(seed=0, side=SIDE):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("seed", range(8))
def test_pairs_stay_pictures(seed):
    images, _ = augment_pair(noise(1), noise(2), torch.zeros(2), generator(seed), turns="tile")
    assert all(image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1 for image in images)
    again, _ = augment_pair(noise(1), noise(2), torch.zeros(2), generator(seed), turns="tile")
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))


def test_appearance_changes_as_often_as_the_recipe_says():
    """Untouched: no JPEG, no jitter, no blur or sharpening: 0.5 · 0.5 · 0.7."""
    image = noise()
    untouched = sum(recipe._appearance(image, generator(seed)) is image for seed in range(600))
    assert untouched / 600 == pytest.approx(0.175, abs=0.05)
    whole = torch.ones(3, SIDE, SIDE)
    holed = sum(bool((recipe._holes(whole, generator(seed)) == 0).any()) for seed in range(600))
    assert holed / 600 == pytest.approx(0.3, abs=0.06)


def test_jpeg_loses_more_at_lower_quality():
    before = to_tensor(noise(side=64))
    loss = [float((to_tensor(jpeg(noise(side=64), q)) - before).abs().mean()) for q in (100, 95, 90)]
    assert 0 < loss[0] < loss[1] < loss[2]


def test_jitter_is_bounded():
    """A grey image has neither saturation nor hue to change: brightness by 0.15 at most, contrast nothing."""
    grey = Image.new("RGB", (8, 8), (120, 120, 120))
    values = [float(to_tensor(jitter(grey, generator(seed))).mean()) * 255 for seed in range(200)]
    assert 101 <= min(values) < 108
    assert 132 < max(values) <= 139


def test_grid_holes_cover_their_share():
    image = torch.ones(3, 100, 100)
    for seed in range(10):
        holed = grid_holes(image, generator(seed))
        assert float((holed == 0).float().mean()) == pytest.approx(0.16)
        line = (holed[0] == 0).any(0).int()
        assert sorted(set(line.diff().tolist())) == [-1, 0, 1]
    assert image.min() == 1


def test_coarse_holes_are_ten_to_25_rectangles():
    image = torch.ones(3, 100, 100)
    shares = [float((coarse_holes(image, generator(seed))[0] == 0).float().mean()) for seed in range(60)]
    assert min(shares) > 0.08  # ten of the smallest cover 0.1 less overlap
    assert max(shares) < 0.6
    assert image.min() == 1


def test_sharpening_is_the_published_kernel():
    """Strength a of the recipe's library: the image plus a·(9·image − sum of 3 × 3 pixels)."""
    import torchvision.transforms.functional as tv

    pixels = np.random.default_rng(0).integers(110, 140, (12, 12, 3), dtype=np.uint8)
    a = 0.3
    sharp = np.asarray(tv.adjust_sharpness(Image.fromarray(pixels), 1 + 13 * a), float)
    box = sum(np.roll(pixels.astype(float), (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1))
    expected = pixels + a * (9 * pixels.astype(float) - box)
    np.testing.assert_allclose(sharp[2:-2, 2:-2], expected[2:-2, 2:-2].clip(0, 255), atol=4.5)
    low, high = recipe.SHARPNESS
    assert ((low - 1) / 13, (high - 1) / 13) == pytest.approx((0.2, 0.5))
