import math

import numpy as np
import pytest
import rasterio.shutil
import rasterio.warp
import torch
from rasterio.enums import ColorInterp

from training.data.simulator.scene import Scene, load_scene, raise_blocks
from training.errors import TrainingError

UTM = "EPSG:32651"  # zone 51 north, central meridian 123° E
WEST, NORTH = 499_000.0, 2_680_000.0


def marked(rows=160, cols=200, bands=3, dtype=np.uint8, mark=(40, 150)):
    """Dark grey with a white square of 8 px whose centre is pixel corner ``mark + 4``."""
    pixels = np.full((bands, rows, cols), 50, dtype)
    pixels[:, mark[0] : mark[0] + 8, mark[1] : mark[1] + 8] = 250
    return pixels


def bright_place(scene):
    """East, north of the centroid of the bright pixels, by the convention of the module's docstring."""
    rows, cols = np.nonzero(scene.texture[0, 0].numpy() > 0.75)
    height, width = scene.texture.shape[2:]
    return (cols.mean() + 0.5 - width / 2) * scene.gsd_m, (height / 2 - rows.mean() - 0.5) * scene.gsd_m


def metres_per_degree(lat):
    """Of longitude and latitude on WGS84 (Snyder 1987, 4-20 and 4-21)."""
    a, e2, phi = 6_378_137.0, 0.00669437999014, math.radians(lat)
    w = 1 - e2 * math.sin(phi) ** 2
    return math.radians(a * math.cos(phi) / math.sqrt(w)), math.radians(a * (1 - e2) / w**1.5)


# --- place -------------------------------------------------------------------------------------------------------


def test_a_pixel_of_a_utm_map_keeps_its_place(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    scene = load_scene(path)
    east_utm, north_utm = WEST + 154 * 0.5, NORTH - 44 * 0.5
    (lon,), (lat,) = rasterio.warp.transform(UTM, "EPSG:4326", [east_utm], [north_utm])
    east, north = bright_place(scene)
    lat_m, lon_m = metres_per_degree(lat)[1], metres_per_degree(lat)[0]
    seen_lat, seen_lon = scene.latlon(east, north)
    assert abs(seen_lat - lat) * lat_m < 0.15
    assert abs(seen_lon - lon) * lon_m < 0.15
    assert scene.gsd_m == pytest.approx(0.5, rel=2e-3)  # UTM shrinks by 0.9996 at its central meridian
    assert scene.width_m == pytest.approx(100, abs=1.5)
    assert scene.depth_m == pytest.approx(80, abs=1.5)


def test_a_pixel_of_a_map_in_degrees_keeps_its_place(tmp_path, write_tiff):
    lon_m, lat_m = metres_per_degree(48)
    size = 0.5 / lat_m
    path = write_tiff(tmp_path / "map.tif", marked(), "EPSG:4326", 11.0, 48.0, size)
    scene = load_scene(path)
    lat, lon = scene.latlon(*bright_place(scene))
    assert abs(lat - (48.0 - 44 * size)) * lat_m < 0.25
    assert abs(lon - (11.0 + 154 * size)) * lon_m < 0.25
    assert scene.width_m == pytest.approx(200 * size * lon_m, abs=1)


def test_latlon_is_metres_over_the_ellipsoid(tmp_path, write_tiff):
    scene = load_scene(write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5))
    lat0, lon0 = scene.origin
    lon_m, lat_m = metres_per_degree(lat0)
    lat, lon = scene.latlon(300.0, -200.0)
    assert (lon - lon0) * lon_m == pytest.approx(300, abs=0.02)
    assert (lat - lat0) * lat_m == pytest.approx(-200, abs=0.02)


def test_a_coarser_scene_is_smaller(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    coarse = load_scene(path, gsd_m=2.0)
    assert coarse.gsd_m == 2.0
    assert coarse.texture.shape[2:] == pytest.approx((40, 50), abs=1)
    np.testing.assert_allclose(bright_place(coarse), bright_place(load_scene(path)), atol=1.0)


# --- pixels ------------------------------------------------------------------------------------------------------


def test_colours_are_kept(tmp_path, write_tiff):
    pixels = np.empty((3, 60, 60), np.uint8)
    pixels[:] = np.array([10, 120, 230])[:, None, None]
    texture = load_scene(write_tiff(tmp_path / "map.tif", pixels, UTM, WEST, NORTH, 1.0)).texture[0]
    np.testing.assert_allclose(texture[:, 5:-5, 5:-5].mean((1, 2)), np.array([10, 120, 230]) / 255, atol=2e-3)


def test_one_band_becomes_grey(tmp_path, write_tiff):
    texture = load_scene(write_tiff(tmp_path / "map.tif", marked(bands=1), UTM, WEST, NORTH, 0.5)).texture[0]
    assert torch.equal(texture[0], texture[1])
    assert torch.equal(texture[0], texture[2])
    assert texture.max() == pytest.approx(250 / 255, abs=1e-3)


def test_transparent_pixels_are_grey(tmp_path, write_tiff):
    pixels = np.concatenate((marked(), np.full((1, 160, 200), 255, np.uint8)))
    pixels[3, :, :100] = 0
    path = tmp_path / "map.tif"
    write_tiff(path, pixels, UTM, WEST, NORTH, 0.5, photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    texture = load_scene(path).texture[0]
    np.testing.assert_allclose(texture[:, :, 5:95], 0.5, atol=1e-6)
    np.testing.assert_allclose(texture[:, 100:-5, 105:-5], 50 / 255, atol=1e-3)


def test_pixels_without_data_are_grey(tmp_path, write_tiff):
    pixels = marked()
    pixels[:, :, :100] = 7
    texture = load_scene(write_tiff(tmp_path / "map.tif", pixels, UTM, WEST, NORTH, 0.5, nodata=7)).texture[0]
    np.testing.assert_allclose(texture[:, 5:-5, 5:95], 0.5, atol=1e-6)
    np.testing.assert_allclose(texture[:, 100:-5, 105:-5], 50 / 255, atol=1e-3)


def test_deeper_data_is_stretched_between_percentiles(tmp_path, write_tiff):
    pixels = np.tile(np.linspace(0, 4000, 200).astype(np.uint16), (3, 160, 1))
    texture = load_scene(write_tiff(tmp_path / "map.tif", pixels, UTM, WEST, NORTH, 0.5)).texture[0]
    assert texture.min() >= 0
    assert texture.max() == 1
    expected = (np.linspace(0, 1, 200)[20:180] - 0.02) / 0.96  # the 2nd percentile becomes black, the 98th white
    np.testing.assert_allclose(texture[0, 80, 20:180], expected, atol=0.01)


# --- heights -----------------------------------------------------------------------------------------------------


def test_heights_come_from_a_raster_in_another_projection(tmp_path, write_tiff):
    """A plane that rises 50 m per 1000 m to the east, as a coarse raster in degrees that covers more than the map."""
    map_path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    (lon,), (lat,) = rasterio.warp.transform(UTM, "EPSG:4326", [WEST], [NORTH])
    lon_m, _ = metres_per_degree(lat)
    size = 5 / lon_m
    east_m = (np.arange(80) + 0.5) * size * lon_m
    dem = np.tile((100 + 0.05 * east_m).astype(np.float32), (80, 1))[None]
    height_path = write_tiff(tmp_path / "dem.tif", dem, "EPSG:4326", lon - 100 / lon_m, lat + 150 / lon_m, size)
    scene = load_scene(map_path, height_path)
    height = scene.height_m[0].double().numpy()
    assert height.shape == pytest.approx((80, 100), abs=1)
    assert height.min() == 0
    expected = 0.05 * scene.width_m / height.shape[1] * np.arange(height.shape[1])
    np.testing.assert_allclose(height - height[:, :1], np.tile(expected, (height.shape[0], 1)), atol=0.06)


def test_without_heights_blocks_are_raised(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    one, same, other = load_scene(path, seed=1), load_scene(path, seed=1), load_scene(path, seed=2)
    assert torch.equal(one.height_m, same.height_m)
    assert not torch.equal(one.height_m, other.height_m)
    assert one.height_m.max() > 3


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_above_the_datum_and_of_building_height(seed):
    height = raise_blocks(180, 120, np.random.default_rng(seed))
    assert height.shape == (120, 180)
    assert height.dtype == np.float32
    assert height.min() == 0
    assert 3 < height.max() < 15 + 12  # a block of at most 15 m on three waves of at most 2 m up and down
    assert np.array_equal(height, raise_blocks(180, 120, np.random.default_rng(seed)))


def test_cover_is_the_share_of_ground_under_blocks():
    def steep_share(cover):
        height = raise_blocks(400, 400, np.random.default_rng(0), cover=cover)
        return (np.abs(np.diff(height, axis=1)) > 2).mean()

    assert steep_share(0) == 0
    assert steep_share(0.3) > 2 * steep_share(0.1) > 0


# --- errors ------------------------------------------------------------------------------------------------------


def test_a_map_without_georeference_names_the_fix(tmp_path, write_tiff):
    path = tmp_path / "plain.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tiff(path, marked(), None, 0, 0, 1.0, transform=rasterio.Affine.identity())
    with pytest.raises(TrainingError, match="gdal_translate"):
        load_scene(path)


def test_another_file_is_no_map(tmp_path):
    (tmp_path / "notes.tif").write_text("no raster")
    with pytest.raises(TrainingError, match=r"notes\.tif"):
        load_scene(tmp_path / "notes.tif")
    with pytest.raises(TrainingError, match=r"absent\.tif"):
        load_scene(tmp_path / "absent.tif")


def test_a_file_that_names_others_is_no_map_whatever_it_is_called(tmp_path, write_tiff):
    real = write_tiff(tmp_path / "real.tif", marked(), UTM, WEST, NORTH, 0.5)
    disguised = tmp_path / "map.tif"
    rasterio.shutil.copy(real, disguised, driver="VRT")
    with pytest.raises(TrainingError, match="Give a GeoTIFF"):
        load_scene(disguised)
    with pytest.raises(TrainingError, match="Give a GeoTIFF"):
        load_scene(real, disguised)


def test_a_bad_height_raster_is_named(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    with pytest.raises(TrainingError, match=r"absent\.tif"):
        load_scene(path, tmp_path / "absent.tif")


def test_a_map_too_large_for_memory_is_refused(tmp_path, write_tiff):
    path = write_tiff(tmp_path / "map.tif", marked(), UTM, WEST, NORTH, 0.5)
    with pytest.raises(TrainingError, match=r"over 100 px.*larger gsd_m"):
        load_scene(path, max_px=100)


def test_a_scene_of_unknown_place_has_no_latlon(make_scene):
    with pytest.raises(TrainingError, match="no place on Earth"):
        make_scene(20, 20).latlon(0, 0)


@pytest.mark.parametrize(
    ("texture", "height"), [((3, 4, 4), (1, 4, 4)), ((1, 1, 4, 4), (1, 4, 4)), ((2, 3, 4, 4), (1, 4, 4))]
)
def test_shapes_are_checked(texture, height):
    with pytest.raises(TrainingError, match="must have shape"):
        Scene(torch.zeros(texture), torch.zeros(height), 1.0)
