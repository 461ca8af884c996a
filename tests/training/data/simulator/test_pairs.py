import math

import numpy as np
import pytest
import torch

from training.data.simulator import drone
from training.data.simulator.pairs import CELL_PX, SCENE_PX, PairSimulator, cut_tiles
from training.data.simulator.scene import Scene
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture

SIZE = 48


@pytest.fixture(scope="module")
def textures():
    """Ten smooth pictures in two folders."""
    bank = []
    for i in range(10):
        coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(i))
        image = torch.nn.functional.interpolate(coarse, (150, 170), mode="bicubic").clamp(0, 1)[0]
        bank.append(Texture(f"{i}", "ab"[i % 2], (image * 255).byte()))
    return bank


def simulator(textures, **settings):
    data = {"tile_side_m": 30.0, "window_px": (100, 140)} | settings
    return PairSimulator(textures, SimulatedConfig(**data), SIZE)


@pytest.fixture(scope="module")
def drawn(textures):
    return simulator(textures).load(range(6), torch.Generator().manual_seed(3))


def test_a_batch_has_pictures_of_the_model_size(drawn):
    assert drawn.photo.shape == drawn.tile.shape == (6, 3, SIZE, SIZE)
    assert drawn.offset_m.shape == (6, 2)
    for images in (drawn.photo, drawn.tile):
        assert 0 <= images.min() < images.max() <= 1


def test_the_same_generator_state_gives_the_same_batch(textures, drawn):
    again = simulator(textures).load(range(6), torch.Generator().manual_seed(3))
    other = simulator(textures).load(range(6), torch.Generator().manual_seed(4))
    for name in ("photo", "tile", "offset_m"):
        assert torch.equal(getattr(drawn, name), getattr(again, name))
        assert not torch.equal(getattr(drawn, name), getattr(other, name))


def test_pairs_are_textures(textures):
    simulated = simulator(textures)
    assert simulated.place.tolist() == list(range(10))
    assert simulated.places == 10
    assert simulated.position is None
    assert simulated.load([4, 2], torch.Generator().manual_seed(0)).place.tolist() == [4, 2]


def test_tile_sides_and_overlaps_are_known(drawn):
    assert drawn.tile_side_m.tolist() == [30.0] * 6
    assert drawn.overlap.tolist() == [1.0] * 6


def test_clean_pairs_have_the_same_geometry(textures, drawn):
    clean = simulator(textures).load(range(6), torch.Generator().manual_seed(3), clean=True)
    assert torch.equal(clean.offset_m, drawn.offset_m)
    assert (clean.tile - drawn.tile).abs().mean() > 0.01


def test_offset_takes_photo_pixels_to_the_tile_pixels_of_the_same_ground(textures, monkeypatch):
    """Flat scene, camera straight down: a photo is a turned, scaled and shifted copy of the tile."""
    cameras = []

    def spy(scene, camera, *args, **options):
        cameras.append(camera)
        return render(scene, camera, *args, **options)

    render = drone.render
    monkeypatch.setattr(drone, "render", spy)
    simulated = simulator(textures, relief_share=0.0, pitch_deg=(90.0, 90.0), offset_share=0.2)
    batch = simulated.load(range(6), torch.Generator().manual_seed(1), clean=True)
    assert batch.offset_m.norm(dim=1).max() > 3
    side_m, compared = 30.0, 0
    for i in range(6):
        heading = math.radians(float(cameras[0].heading_deg[i]))
        ground_m = 2 * float(cameras[0].up_m[i]) * math.tan(math.radians(float(cameras[0].hfov_deg[i])) / 2)
        for row in range(1, SIZE, 4):
            for col in range(1, SIZE, 4):
                right, ahead = ((col + 0.5) / SIZE - 0.5) * ground_m, (0.5 - (row + 0.5) / SIZE) * ground_m
                east = right * math.cos(heading) + ahead * math.sin(heading) + float(batch.offset_m[i, 0])
                north = ahead * math.cos(heading) - right * math.sin(heading) - float(batch.offset_m[i, 1])
                x, y = (east / side_m + 0.5) * SIZE - 0.5, (0.5 - north / side_m) * SIZE - 0.5
                c, r = math.floor(x), math.floor(y)
                if 0 <= c < SIZE - 1 and 0 <= r < SIZE - 1:
                    corner = batch.tile[i, :, r : r + 2, c : c + 2].double()
                    across = torch.tensor([[1 - (x - c), x - c]]).T.double()
                    expected = torch.tensor([1 - (y - r), y - r]).double() @ (corner @ across)[..., 0].T
                    np.testing.assert_allclose(batch.photo[i, :, row, col], expected, atol=0.03)
                    compared += 1
    assert compared > 400


def test_tiles_are_crops():
    generator = torch.Generator().manual_seed(0)
    scene = Scene(torch.rand(2, 3, 40, 60, generator=generator), torch.zeros(2, 10, 15), 0.5)
    # 60 columns, 40 rows: columns 30..49, rows 10..29 are 5 m east; columns 0..19, rows 20..39 10 m west, 5 m south
    tiles = cut_tiles(scene, torch.tensor([[5.0, 0.0], [-10.0, -5.0]]), 10.0, 20)
    torch.testing.assert_close(tiles[0], scene.texture[0, :, 10:30, 30:50], atol=1e-5, rtol=0)
    torch.testing.assert_close(tiles[1], scene.texture[1, :, 20:40, 0:20], atol=1e-5, rtol=0)


def test_windows_are_square_cuts_of_the_texture(textures):
    """Each window, undone by one of the eight turns and flips, is a resampled part of the picture: same mean range."""
    window = simulator(textures)._window(textures[0].image, torch.Generator().manual_seed(0))
    assert window.shape == (3, SCENE_PX, SCENE_PX)
    image = textures[0].image.float() / 255
    assert (window.amax((1, 2)) <= image.amax((1, 2)) + 1e-3).all()
    assert (window.amin((1, 2)) >= image.amin((1, 2)) - 1e-3).all()


def test_photos_cover_about_a_tile(textures):
    """Over flat ground seen from straight above, the ground side is tile side times ``scale``."""
    simulated = simulator(textures, relief_share=0.0, pitch_deg=(90.0, 90.0), scale=(1.2, 1.2), hfov_deg=(35.0, 35.0))
    generator = torch.Generator().manual_seed(0)
    scene = simulated.scenes(torch.arange(3), 0.5, generator)
    assert scene.width_m == pytest.approx(60)
    views = simulated.photos(scene, torch.zeros(3, 2), generator)
    np.testing.assert_allclose(views.centre[:, :2], 0, atol=1e-3)
    sides = (views.footprint - views.footprint.roll(1, 1)).norm(dim=-1)
    np.testing.assert_allclose(sides, 36.0, atol=0.01)


def test_every_part_of_a_photo_knows_its_ground(textures):
    """Around the middle it is the photo's ground point; nothing hides there, as the ground is flat."""
    straight = {"relief_share": 0.0, "pitch_deg": (90.0, 90.0)}
    batch = simulator(textures, **straight).load(range(4), torch.Generator().manual_seed(5), clean=True)
    assert batch.ground_m.shape == (4, SIZE // CELL_PX, SIZE // CELL_PX, 2)
    half = SIZE // CELL_PX // 2
    middle = batch.ground_m[:, half - 1 : half + 1, half - 1 : half + 1].mean((1, 2))
    assert torch.allclose(middle, batch.offset_m, atol=0.05)


@pytest.fixture(scope="module")
def dated(textures):
    """Two places of two dates, red before and green after, the western half of the second rebuilt; and one of one."""
    places = []
    for i in range(2):
        red, green = (torch.zeros(3, 150, 170, dtype=torch.uint8) for _ in range(2))
        red[0], green[1] = textures[i].image[0] // 2 + 100, textures[i].image[0] // 2 + 100
        same = torch.full((1, 150, 170), 255, dtype=torch.uint8)
        same[:, :, : 85 * i] = 0
        places.append(Texture(f"dated-{i}", "dates", red, torch.cat((green, same))))
    return [*places, textures[5]]


def test_a_photo_is_of_one_date_and_its_tile_of_the_other(dated):
    flights = simulator(dated, relief_share=0.0)
    taken = [flights.take(torch.tensor([0, 1]), torch.Generator().manual_seed(seed)) for seed in range(6)]
    photo, tile = (torch.cat([getattr(t, side) for t in taken]).float().mean((2, 3)) for side in ("photo", "tile"))
    assert ((photo[:, 0] > 50) == (tile[:, 1] > 50)).all()
    assert ((photo[:, 0] > 50) != (photo[:, 1] > 50)).all()
    assert 0 < (photo[:, 0] > 50).sum() < 12  # which date is the photo's is drawn


def test_rebuilt_ground_is_no_positive(dated):
    """Everything matches where nothing was rebuilt; else the share of it is told, and its parts have no ground."""
    small = {
        "scale": (0.5, 0.5),
        "hfov_deg": (30.0, 30.0),
        "offset_share": 0.0,
        "tile_share": (0.5, 0.5),
    }  # no photo leaves the scene
    whole = simulator(dated, relief_share=0.0, pitch_deg=(90.0, 90.0), **small)
    taken = [whole.take(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(seed)) for seed in range(8)]
    overlap = torch.stack([t.overlap for t in taken])
    missing = torch.stack([t.ground_m.isnan().any(3).float().mean((1, 2)) for t in taken])
    assert (overlap[:, [0, 2]] == 1).all()
    assert (missing[:, [0, 2]] == 0).all()
    assert overlap[:, 1].min() < 0.5 < overlap[:, 1].max()
    assert ((overlap[:, 1] < 1) == (missing[:, 1] > 0)).all()
    assert ((1 - overlap[:, 1]) <= missing[:, 1] + 1e-6).all()  # a part that is rebuilt in part counts as rebuilt


def test_places_of_two_dates_make_up_their_share(textures, dated):
    flights = simulator([*dated, *textures], dates_share=0.75)
    counts = np.bincount(flights.place)
    assert counts[2:].tolist() == [1] * 11
    assert counts[:2].sum() / counts.sum() == pytest.approx(0.75, abs=0.03)
    assert flights.load([len(flights.place) - 1], torch.Generator().manual_seed(0)).place.tolist() == [1]


def test_turned_photos_keep_their_ground(textures):
    """The ground of each part is where it was, and the photo is the same picture turned."""
    plain = simulator(textures).load(range(6), torch.Generator().manual_seed(8), clean=True)
    turned = simulator(textures, quarter_turns=True).load(range(6), torch.Generator().manual_seed(8), clean=True)
    quarters = []
    for i in range(6):
        fits = [k for k in range(4) if torch.equal(plain.photo[i].rot90(k, (1, 2)), turned.photo[i])]
        quarters += fits
        expected = plain.ground_m[i].rot90(fits[0], (0, 1))
        torch.testing.assert_close(turned.ground_m[i], expected, equal_nan=True)
    assert len(set(quarters)) > 1
    assert torch.equal(plain.tile, turned.tile)
    assert torch.equal(plain.offset_m, turned.offset_m)


def test_kept_views_are_not_taken_again(textures, tmp_path, monkeypatch):
    kept = {"cache": tmp_path, "views": 2}
    once = [simulator(textures, **kept).load([0, 1, 2], torch.Generator().manual_seed(s), clean=True) for s in range(6)]
    assert len(list(tmp_path.rglob("*.npz"))) == 6
    monkeypatch.setattr(PairSimulator, "take", lambda *_: 1 / 0)
    again = [
        simulator(textures, **kept).load([0, 1, 2], torch.Generator().manual_seed(s), clean=True) for s in range(6)
    ]
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a.photo, b.photo)
        assert torch.equal(a.offset_m, b.offset_m)
    assert len({float(batch.photo[0].mean()) for batch in once}) == 2
    with pytest.raises(ZeroDivisionError):  # another flight is another view
        simulator(textures, **kept, scale=(2.0, 2.0)).load([0], torch.Generator().manual_seed(0))
