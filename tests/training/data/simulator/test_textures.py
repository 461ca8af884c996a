import hashlib
import shutil

import numpy as np
import pytest
from PIL import Image
from torch import Generator

from training.data.simulator.simulated import Simulated, SimulatedConfig
from training.data.simulator.textures import MAP_GSD_M, load_dates, load_textures, map_windows
from training.errors import TrainingError


def data(root, *globs, **settings):
    return SimulatedConfig(root=root, textures=globs, **settings)


def names(textures):
    return {t.name for t in textures}


def test_every_picture_is_in_one_part(picture_folder):
    train, held_out = load_textures(data(picture_folder, "a/*.png", "b/*.png", held_out_share=0.3))
    everything = {p.relative_to(picture_folder).as_posix() for p in picture_folder.rglob("*.png")}
    assert names(train) | names(held_out) == everything
    assert not names(train) & names(held_out)
    assert {t.group for t in train} == {"a", "b"}
    for name in everything:
        share = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32
        assert (name in names(held_out)) == (share < 0.3)


def test_the_split_stays_when_textures_are_added(picture_folder, tmp_path):
    shutil.copytree(picture_folder / "a", tmp_path / "a")
    before = load_textures(data(tmp_path, "*/*.png", held_out_share=0.3))
    shutil.copytree(picture_folder / "b", tmp_path / "b")
    after = load_textures(data(tmp_path, "*/*.png", held_out_share=0.3))
    for old, new in zip(before, after, strict=True):
        assert names(old) <= names(new)


def test_nothing_is_held_out_when_not_asked(picture_folder):
    train, held_out = load_textures(data(picture_folder, "a/*.png", held_out_share=0.0))
    assert (len(train), len(held_out)) == (12, 0)


def test_pixels_are_as_in_the_file(picture_folder):
    train, _ = load_textures(data(picture_folder, "a/00.png", held_out_share=0.0))
    with Image.open(picture_folder / "a/00.png") as image:
        np.testing.assert_array_equal(train[0].image.permute(1, 2, 0), np.array(image))


def test_geotiffs_are_read_north_up(tmp_path, write_tiff):
    pixels = np.zeros((3, 60, 80), np.uint8)
    pixels[0, :30] = 200
    write_tiff(tmp_path / "map.tif", pixels, "EPSG:32651", 500_000, 2_680_000, 1.0)
    (texture,), _ = load_textures(data(tmp_path, "*.tif", held_out_share=0.0))
    assert texture.image.shape[1:] == pytest.approx((60, 80), abs=1)
    assert texture.image[0, 5:25, 5:-5].float().mean() == pytest.approx(200, abs=1)
    assert texture.image[0, 35:55, 5:-5].max() == 0


def test_no_glob_and_no_match_name_the_fix(tmp_path):
    with pytest.raises(TrainingError, match=r"data\.textures is empty"):
        load_textures(data(tmp_path))
    with pytest.raises(TrainingError, match=r"No file matches 'maps/\*\.tif'.*data\.root"):
        load_textures(data(tmp_path, "maps/*.tif"))


def test_another_file_is_no_picture(tmp_path):
    (tmp_path / "notes.jpg").write_text("no picture")
    with pytest.raises(TrainingError, match=r"notes\.jpg is not a readable picture"):
        load_textures(data(tmp_path, "*.jpg"))


def test_all_held_out_names_the_fix(picture_folder):
    with pytest.raises(TrainingError, match="held_out_share=0"):
        load_textures(data(picture_folder, "a/00.png", held_out_share=0.999))


def test_a_large_map_is_many_places_that_share_no_ground(tmp_path):
    """Every pixel of a 90 × 50 map has its own colour, and is in exactly one of the 4 × 2 pieces of at least 20 px."""
    number = np.arange(90 * 50).reshape(50, 90)
    pixels = np.stack([number // 256, number % 256, number * 0], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "map.png")
    train, held_out = load_textures(data(tmp_path, "*.png", held_out_share=0.4, window_px=(20, 20)))
    assert sorted(t.name for t in train + held_out) == [f"map.png#r{r}c{c}" for r in range(2) for c in range(4)]
    assert train
    assert held_out
    assert all(min(t.image.shape[1:]) >= 20 for t in train + held_out)
    seen = [int(v) for t in train + held_out for v in (t.image[0].int() * 256 + t.image[1].int()).flatten()]
    assert sorted(seen) == list(range(90 * 50))


# --- one map of known scale --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def area(tmp_path_factory, write_tiff):
    """A map of 100 m by 64 m at 0.5 m/px, brighter to the east."""
    ramp = np.broadcast_to(np.linspace(0, 255, 200, dtype=np.uint8), (3, 128, 200))
    return write_tiff(tmp_path_factory.mktemp("map") / "area.tif", ramp, "EPSG:32651", 500_000, 2_680_000, 0.5)


def test_a_map_is_cut_by_its_own_scale(area):
    settings = SimulatedConfig(map=area, tile_side_m=20.0, tile_share=(0.8, 0.8))
    places, side_px = map_windows(settings)
    assert side_px == 20 / 0.8 / MAP_GSD_M == 100
    assert len(places) == 4 * 2  # 100 m by 64 m, in squares of at least 25 m
    assert all(min(place.image.shape[1:]) >= side_px for place in places)
    assert len(names(places)) == 8


def test_tiles_of_a_map_are_as_wide_as_asked_for(area):
    """Across a tile the ramp rises by 255 · 20 m / 100 m, or falls along either axis: windows may be turned."""

    class Size:
        image_size, resize = 32, "squash"

    dataset = Simulated(SimulatedConfig(map=area, tile_side_m=20.0, tile_share=(0.8, 0.8)), Size, seed=0)
    tiles = dataset.train().load([0, 3], Generator().manual_seed(0), clean=True).tile
    for tile in tiles.mean(1):
        rise = max(abs(tile[:, -1] - tile[:, 0]).mean(), abs(tile[-1] - tile[0]).mean())
        assert rise == pytest.approx(20 / 100 * 31 / 32, abs=0.01)  # between the centres of the outermost pixels


def test_maps_without_room_or_held_out_places_name_the_fix(area):
    with pytest.raises(TrainingError, match=r"two squares of 100 m"):
        map_windows(SimulatedConfig(map=area, tile_side_m=80.0, tile_share=(0.8, 0.8)))
    with pytest.raises(TrainingError, match=r"data\.map=area\.tif"):
        map_windows(SimulatedConfig())
    with pytest.raises(TrainingError, match=r"use data\.textures"):
        load_textures(SimulatedConfig(map=area))


@pytest.fixture
def two_dates(tmp_path):
    """Three places; the second is brighter on the second date, the third has become another place."""
    for date in ("before", "after"):
        (tmp_path / date).mkdir()
    rng = np.random.default_rng(4)
    for i in range(3):
        coarse = [Image.fromarray(rng.integers(40, 160, (12, 12, 3), dtype=np.uint8)) for _ in range(2)]
        before, after = (np.asarray(c.resize((192, 160), Image.Resampling.BICUBIC), np.int16) for c in coarse)
        Image.fromarray(before.astype(np.uint8)).save(tmp_path / f"before/{i}.png")
        later = [before, before // 2 + 90, after][i]
        Image.fromarray(later.astype(np.uint8)).save(tmp_path / f"after/{i}.png")
    return tmp_path


DATES = (("before/*.png", "after/*.png"),)


def test_places_of_two_dates_say_what_is_still_the_same(two_dates):
    places = load_dates(data(two_dates, dates=DATES))
    assert [place.name for place in places] == ["before/0.png", "before/1.png", "before/2.png"]
    same = [float(place.other[3].float().mean()) / 255 for place in places]
    assert same[0] == 1
    assert same[1] > 0.95
    assert same[2] < 0.4
    with Image.open(two_dates / "after/1.png") as image:
        np.testing.assert_array_equal(places[1].other[:3].permute(1, 2, 0), np.array(image))


def test_held_out_places_of_two_dates_are_not_trained_on(two_dates):
    settings = {"dates": DATES, "dates_held_out": ("before/1.png",), "held_out_share": 0.0}
    train, held_out = load_textures(data(two_dates, "before/0.png", **settings))
    assert [t.name for t in train] == ["before/0.png", "before/0.png", "before/2.png"]
    assert held_out == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dates": (("before/*.png", "after/0.png"),)}, "matches 3 files"),
        ({"dates": (("none/*.png", "none/*.png"),)}, "matches 0 files"),
        ({"dates": DATES, "dates_held_out": ("before/9.png",)}, "before/9.png"),
    ],
)
def test_dates_that_do_not_pair_are_refused(two_dates, settings, says):
    with pytest.raises(TrainingError, match=says):
        load_dates(data(two_dates, **settings))


def test_dates_of_different_size_are_refused(two_dates):
    Image.new("RGB", (50, 50)).save(two_dates / "after/1.png")
    with pytest.raises(TrainingError, match="not aligned"):
        load_dates(data(two_dates, dates=DATES))
