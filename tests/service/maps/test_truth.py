"""An import tells the truth: what cannot be right is refused with its fix, what may be wrong gets a sentence."""

import math
import struct
from contextlib import closing

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform as project

from service.errors import AerofixError, InvalidFootprint, SourceUnreadable, UnsupportedMediaType
from service.maps.mosaic import open_mosaic

UTM51 = "EPSG:32651"
PLACE = Affine(1, 0, 499_880, 0, -1, 2_684_000)
ZOOM = 17


def refusal(path, **options):
    with pytest.raises(AerofixError) as caught:
        open_mosaic(path, **options).close()
    assert str(path.parent) not in caught.value.detail
    return caught.value


@pytest.fixture
def seen(read_all):
    """``seen(path)``: image, valid pixels and notes of a map."""

    def look(path, zoom=ZOOM, **options):
        with closing(open_mosaic(path, **options)) as mosaic:
            image, valid, _ = read_all(mosaic, zoom, margin=0)
            return image, valid, mosaic.notes

    return look


# --- where it lies


def test_no_crs_names_the_command_and_the_users_own_file(tmp_path, write, blobs):
    write(tmp_path / "x", blobs(), None, driver="PNG")
    (tmp_path / "x.wld").write_text("1\n0\n0\n-1\n499880.5\n2683999.5")
    error = refusal(tmp_path / "x", name="ortho.tif")
    assert isinstance(error, SourceUnreadable)
    assert "gdal_translate -a_srs EPSG:… ortho.tif out.tif" in error.detail
    assert "look like UTM" in error.detail


def test_no_georeference_says_how_to_give_one(tmp_path, write, blobs):
    error = refusal(write(tmp_path / "map.tif", blobs(), None))
    assert "does not say where it lies" in error.detail
    assert "corners.json" in error.detail
    assert "-a_ullr WEST NORTH EAST SOUTH" in error.detail


def test_local_coordinates_are_called_so(tmp_path, write, blobs):
    wkt = 'LOCAL_CS["Local Coordinates (m)",UNIT["metre",1]]'
    error = refusal(write(tmp_path / "map.tif", blobs(), CRS.from_wkt(wkt)))
    assert "local coordinates" in error.detail
    assert "-a_srs EPSG:…" in error.detail


def test_coordinates_that_are_not_of_the_projection(tmp_path, write, blobs):
    error = refusal(write(tmp_path / "map.tif", blobs(), "EPSG:4326", PLACE))  # metres, called degrees
    assert "does not lie on Earth" in error.detail
    assert "gdal_translate -a_srs" in error.detail


def gcps(path, write, bands, places, crs=UTM51):
    """``{(row, column): (x, y)}``."""
    points = [GroundControlPoint(row, column, x, y) for (row, column), (x, y) in places.items()]
    count, height, width = bands.shape
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with rasterio.open(path, "w", driver="GTiff", gcps=points, crs=crs, **profile) as file:
        file.write(bands)
    return path


def test_tie_points_of_a_plane_are_a_georeference(tmp_path, write, blobs, read_all, shift_px):
    bands = blobs()
    places = {(r, c): (499_880 + c, 2_684_000 - r) for r in (0, 100, 240) for c in (0, 70, 240)}
    with closing(open_mosaic(gcps(tmp_path / "map.tif", write, bands, places))) as mosaic:
        image, valid, window = read_all(mosaic, ZOOM)
        assert mosaic.notes == []
    assert shift_px(image, valid, window, ZOOM, bands, UTM51, PLACE)[0] < 0.1


def test_tie_points_that_bend_are_followed(tmp_path, write, blobs, mercator):
    """The east of the map leans ten metres north, smoothly: each tie point's pixel shows the colour that is there."""
    bands = np.full((3, 240, 240), 60, np.uint8)
    bands += blobs() // 4
    rows, columns = np.mgrid[0:241:40, 0:241:40]
    x, y = 499_880 + columns, 2_684_000 - rows + 10 * (columns / 240) ** 2
    places = {
        (int(r), int(c)): (float(e), float(n))
        for r, c, e, n in zip(rows.ravel(), columns.ravel(), x.ravel(), y.ravel(), strict=True)
    }
    for row, column in ((80, 40), (160, 200), (120, 120)):
        bands[:, row - 3 : row + 3, column - 3 : column + 3] = 255
    with closing(open_mosaic(gcps(tmp_path / "map.tif", write, bands, places))) as mosaic:
        assert any("bent to its 49 tie points" in note for note in mosaic.notes)
        for row, column in ((80, 40), (160, 200), (120, 120)):
            (lon,), (lat,) = project(UTM51, "EPSG:4326", *([value] for value in places[row, column]))
            px, py = mercator.pixel_of(lat, lon, 20)
            image, _ = mosaic.read(20, int(px) - 80, int(py) - 80, 160, 160)
            bright = image.astype(float).mean(axis=2) > 200
            i, j = np.argwhere(bright).mean(axis=0) + 0.5
            assert math.hypot(j - 80 - px % 1, i - 80 - py % 1) < 3  # of 7 pixels a metre


def test_tie_points_that_contradict_each_other_are_refused(tmp_path, write, blobs):
    trapezoid = {(0, 0): (499_940, 2_684_000), (0, 240): (500_060, 2_684_000), (240, 240): (500_120, 2_683_760),
                 (240, 0): (499_880, 2_683_760)}  # fmt: skip
    error = refusal(gcps(tmp_path / "four.tif", write, blobs(), trapezoid))
    assert isinstance(error, InvalidFootprint)
    assert "contradict each other" in error.detail
    rng = np.random.default_rng(0)
    wild = {(r, c): (499_880 + c + rng.normal(0, 60), 2_684_000 - r) for r in (0, 120, 240) for c in (0, 120, 240)}
    assert "contradict" in refusal(gcps(tmp_path / "nine.tif", write, blobs(), wild)).detail
    line = {(0, 0): (499_880, 2_684_000), (100, 100): (499_980, 2_683_900), (200, 200): (500_080, 2_683_800)}
    assert "on one line" in refusal(gcps(tmp_path / "line.tif", write, blobs(), line)).detail


@pytest.mark.parametrize("mirrored", [lambda r, c: (r, 240 - c), lambda r, c: (240 - r, c), lambda r, c: (c, r)])
def test_tie_points_of_a_mirror_image_are_refused(tmp_path, write, blobs, mirrored):
    places = {}
    for r, c in np.ndindex(3, 3):
        row, column = mirrored(120 * r, 120 * c)
        places[120 * r, 120 * c] = (499_880 + column, 2_684_000 - row)
    error = refusal(gcps(tmp_path / "map.tif", write, blobs(), places))
    assert isinstance(error, InvalidFootprint)
    assert "mirror image" in error.detail
    assert "gdalwarp -tps -r bilinear map.tif out.tif" in error.detail


def test_two_tie_points_are_too_few(tmp_path, write, blobs):
    two = {(0, 0): (499_880, 2_684_000), (240, 240): (500_120, 2_683_760)}
    assert "2 tie points, which is too few" in refusal(gcps(tmp_path / "map.tif", write, blobs(), two)).detail


# --- what it shows


def test_a_declared_void_and_an_undeclared_collar_look_the_same(tmp_path, write, blobs, seen):
    for value in ((255, 255, 255), (0, 0, 0), (255, 0, 255)):
        bands = blobs()
        bands[:, :, :80] = np.array(value)[:, None, None]
        bands[:, 100:110, 150:160] = np.array(value)[:, None, None]  # a roof of that colour stays
        image, valid, notes = seen(write(tmp_path / "collar.tif", bands, UTM51, PLACE))
        assert valid.mean() == pytest.approx(2 / 3, abs=0.05)
        assert "from its edge inwards" in notes[0]
        assert f"({value[0]}, {value[1]}, {value[2]})" in notes[0]
        h, w = valid.shape
        roof = np.s_[int(h * 0.43) : int(h * 0.45), int(w * 0.645) : int(w * 0.655)]
        assert valid[roof].all()
        assert not image[~valid].any()


def test_a_collar_that_went_through_jpeg(tmp_path, write, blobs, seen):
    bands = blobs()
    bands[:, :, :96] = 255
    path = write(tmp_path / "c.tif", bands, UTM51, PLACE, compress="jpeg", photometric="ycbcr", jpeg_quality=75)
    _, valid, notes = seen(path)
    assert valid.mean() == pytest.approx(0.6, abs=0.05)
    assert "flat colour (255, 255, 255)" in notes[0]


def test_a_collar_around_a_turned_map(tmp_path, write, blobs, seen):
    bands = blobs()
    i, j = np.mgrid[0:240, 0:240]
    outside = np.abs(i - 120) + np.abs(j - 120) > 115
    bands[:, outside] = 0
    _, valid, notes = seen(write(tmp_path / "c.tif", bands, UTM51, PLACE))
    assert valid.mean() == pytest.approx((~outside).mean(), abs=0.03)
    assert len(notes) == 1


@pytest.mark.parametrize("value", [0, 255, 77])
def test_a_map_without_contrast_is_refused(tmp_path, write, value):
    path = write(tmp_path / "map.tif", np.full((3, 240, 240), value, np.uint8))
    assert "shows nothing" in refusal(path).detail


def test_a_map_without_a_valid_pixel_is_refused(tmp_path, write):
    assert "shows nothing" in refusal(write(tmp_path / "map.tif", np.zeros((3, 240, 240), np.uint8), nodata=0)).detail


def test_a_mostly_empty_map_gets_a_sentence(tmp_path, write, blobs, seen):
    bands = blobs() * np.uint8(0)
    bands[:, 100:180, 100:180] = blobs(80, 80)
    _, valid, notes = seen(write(tmp_path / "map.tif", bands, nodata=0))
    assert "mostly empty" in notes[0]
    assert valid.mean() == pytest.approx(1 / 9, abs=0.02)


@pytest.mark.parametrize(("gsd_m", "says"), [(4.0, "coarser than drones see"), (0.01, "finer than photos")])
def test_a_resolution_that_drones_do_not_see_gets_a_sentence(tmp_path, write, blobs, gsd_m, says):
    path = write(tmp_path / "map.tif", blobs(), transform=Affine(gsd_m, 0, 499_880, 0, -gsd_m, 2_684_000))
    with closing(open_mosaic(path)) as mosaic:
        assert says in mosaic.notes[0]


def test_rows_from_south_to_north_get_a_sentence(tmp_path, write, blobs, seen):
    up = Affine(1, 0, 499_880, 0, 1, 2_683_760)
    image, _, notes = seen(write(tmp_path / "up.tif", blobs()[:, ::-1].copy(), UTM51, up))
    expected, _, none = seen(write(tmp_path / "down.tif", blobs(), UTM51, PLACE))
    assert "rows of up.tif run from south to north" in notes[0]
    assert none == []
    assert np.abs(image.astype(int) - expected).mean() < 1
    west = Affine(-1, 0, 500_120, 0, -1, 2_684_000)
    image, _, notes = seen(write(tmp_path / "west.tif", blobs()[:, :, ::-1].copy(), UTM51, west))
    assert "columns of west.tif run from east to west" in notes[0]
    assert np.abs(image.astype(int) - expected).mean() < 1


# --- bands and depths


def near(image, valid, expected, expected_valid, most=3.0):
    both = valid & expected_valid
    assert both.sum() > 10_000
    return np.abs(image[both].astype(float) - expected[both]).mean() < most


@pytest.mark.parametrize("fill", [None, 0, 65535])
@pytest.mark.parametrize("outliers", [False, True])
def test_16_bits_are_stretched_over_the_map_alone(tmp_path, write, blobs, seen, fill, outliers):
    bands = blobs()
    deep = bands.astype(np.uint16) * 17 + 3000
    if outliers:
        deep[:, ::37, ::41] = 60_000
    if fill is not None:
        deep[:, :, :80] = fill
    image, valid, _ = seen(write(tmp_path / "deep.tif", deep, UTM51, PLACE))
    sound = bands[:, :, 80:] if fill is not None else bands
    low, high = np.percentile(sound, (2, 98))
    expected, there, _ = seen(
        write(tmp_path / "plain.tif", np.clip((bands - low) * 255 / (high - low), 0, 255).astype(np.uint8))
    )
    assert near(image, valid, expected, there, 6.0)
    assert valid.mean() == pytest.approx(1 if fill is None else 2 / 3, abs=0.05)


@pytest.mark.parametrize("void", [np.nan, -9999, -32768, np.float32(-3.4028235e38)])
def test_floats_have_voids_that_nobody_declares(tmp_path, write, blobs, seen, void):
    bands = blobs().astype(np.float32) / 255
    bands[:, :, :80] = void
    bands[:, 150, 150] = void
    image, valid, _ = seen(write(tmp_path / "f.tif", bands, UTM51, PLACE))
    assert valid.mean() == pytest.approx(2 / 3, abs=0.03)
    assert image[valid].std() > 40


def test_minis_white(tmp_path, write, blobs, seen):
    grey = blobs()[:1]
    path = write(tmp_path / "w.tif", 255 - grey, UTM51, PLACE, photometric="MINISWHITE")
    image, valid, _ = seen(path)
    expected, there, _ = seen(write(tmp_path / "b.tif", grey, UTM51, PLACE))
    assert near(image, valid, expected, there)


def test_a_palette_is_its_colours(tmp_path, write, blobs, seen):
    index = (blobs()[:1] // 16).astype(np.uint8)
    colours = {i: (255 - 16 * i, 8 * i, 100, 0 if i == 3 else 255) for i in range(16)}
    path = write(tmp_path / "p.tif", index, UTM51, PLACE, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, colours)
    image, valid, _ = seen(path)
    table = np.array([colours[i][:3] for i in range(16)], np.uint8)
    expected, there, _ = seen(write(tmp_path / "rgb.tif", np.moveaxis(table[index[0]], 2, 0).copy(), UTM51, PLACE))
    assert near(image, valid, expected, there)


def test_grey_with_alpha_and_five_bands(tmp_path, write, blobs, seen):
    bands = blobs()
    alpha = np.full((1, 240, 240), 255, np.uint8)
    alpha[:, :, :120] = 0
    path = write(tmp_path / "ga.tif", np.concatenate([bands[:1], alpha]), UTM51, PLACE, alpha="yes")
    image, valid, _ = seen(path)
    assert valid.mean() == pytest.approx(0.5, abs=0.03)
    assert np.ptp(image, axis=2).max() == 0
    five = np.concatenate([blobs(seed=5)[:1], bands[2:3], bands[1:2], bands[:1], alpha])
    path = write(tmp_path / "five.tif", five, UTM51, PLACE)
    with rasterio.open(path, "r+") as file:  # near infrared, blue, green, red, alpha
        file.colorinterp = [
            ColorInterp.undefined,
            ColorInterp.blue,
            ColorInterp.green,
            ColorInterp.red,
            ColorInterp.alpha,
        ]
    image, valid, _ = seen(path)
    expected, there, _ = seen(write(tmp_path / "rgb.tif", bands, UTM51, PLACE))
    assert valid.mean() == pytest.approx(0.5, abs=0.03)
    assert near(image, valid, expected, there)


def test_sparse_files_are_empty_where_nothing_was_written(tmp_path, write, blobs, seen):
    profile = {"count": 3, "height": 240, "width": 240, "dtype": "uint8", "crs": UTM51, "transform": PLACE}
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", sparse_ok=True, tiled=True, blockxsize=16, blockysize=16, **profile
    ) as file:
        file.write(blobs(240, 96), window=((0, 240), (144, 240)))
    _, valid, notes = seen(tmp_path / "s.tif")
    assert valid.mean() == pytest.approx(0.4, abs=0.05)
    assert "from its edge inwards" in notes[0]


# --- what is no map


def test_truncated_files_say_so(tmp_path, write, blobs):
    path = write(tmp_path / "map.tif", np.random.default_rng(0).integers(0, 255, (3, 400, 400)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "ends early" in refusal(path).detail


def test_more_bands_than_a_picture_has(tmp_path):
    profile = {"count": 3000, "height": 16, "width": 16, "dtype": "uint8", "crs": UTM51, "transform": PLACE}
    with rasterio.open(tmp_path / "cube.tif", "w", driver="GTiff", sparse_ok=True, **profile):
        pass
    assert "3000 bands; the limit is 64" in refusal(tmp_path / "cube.tif").detail


def test_what_is_no_map_is_told_what_would_be(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 and so on")
    error = refusal(tmp_path / "a.pdf")
    assert isinstance(error, UnsupportedMediaType)
    assert "gdal_translate a.pdf out.tif" in error.detail
    assert "cannot be read" in refusal(tmp_path / "gone.tif").detail


@pytest.mark.parametrize(("tag", "value"), [(262, 32803), (262, 34892), (50706, 1)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_raw_sensor_file_is_no_map(tmp_path, order, tag, value):
    """A TIFF of one strip, written by hand as TIFF 6.0 has it."""
    entries = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 16, 279: 256} | {tag: value}
    directory = struct.pack(order + "H", len(entries))
    for key, number in sorted(entries.items()):
        directory += struct.pack(order + "HHIHH", key, 3, 1, number, 0)
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + 256)
    (tmp_path / "x.dng").write_bytes(start + bytes(range(256)) + directory + bytes(4))
    assert "raw sensor file" in refusal(tmp_path / "x.dng").detail
