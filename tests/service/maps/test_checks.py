"""Rasters of unlike kinds, alone and beside each other: heights, sensors' numbers, fill that nobody declared."""

from contextlib import closing

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from service.errors import SourceUnreadable
from service.maps.mosaic import open_mosaic

ZOOM = 17
EAST = Affine(1, 0, 500_120, 0, -1, 2_684_000)
"""Where a raster of 240 m begins that lies east of the usual one."""


@pytest.fixture
def look(read_all):
    """``look(path)``: image, valid pixels and notes of a map."""

    def read(path):
        with closing(open_mosaic(path)) as mosaic:
            image, valid, _ = read_all(mosaic, ZOOM, margin=0)
            return image, valid, mosaic.notes

    return read


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "survey"
    made.mkdir()
    return made


def heights(dtype="float32"):
    rows, columns = np.mgrid[0:240, 0:240]
    return (400 + 30 * np.sin(rows / 60) + columns / 20)[None].astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint16"])
def test_one_band_of_numbers_may_be_heights(tmp_path, write, look, dtype):
    notes = look(write(tmp_path / "dsm.tif", heights(dtype)))[2]
    assert len(notes) == 1
    assert "--elevation dsm.tif" in notes[0]


def test_heights_that_say_so_are_refused(tmp_path, write):
    path = write(tmp_path / "dsm.tif", heights())
    with rasterio.open(path, "r+") as file:
        file.units = ("metre",)
    with pytest.raises(SourceUnreadable, match=r"holds heights .*--elevation dsm\.tif"):
        open_mosaic(path)
    path = write(tmp_path / "egm.tif", heights(), crs="EPSG:32651+5773")
    with pytest.raises(SourceUnreadable, match="holds heights"):
        open_mosaic(path)


def test_one_band_of_bytes_is_a_grey_picture(tmp_path, write, blobs, look):
    assert look(write(tmp_path / "grey.tif", blobs()[:1]))[2] == []


def test_heights_beside_a_picture_are_left_out(folder, write, blobs, look, tmp_path):
    write(folder / "dsm.tif", heights())
    write(folder / "ortho.tif", blobs())
    image, _, notes = look(folder)
    alone, _, _ = look(write(tmp_path / "ortho.tif", blobs()))
    np.testing.assert_array_equal(image, alone)
    assert len(notes) == 1
    assert "dsm.tif" in notes[0]


def test_grey_and_coloured_sheets_are_one_map(folder, write, blobs, look):
    write(folder / "a.tif", blobs())
    write(folder / "b.tif", blobs(seed=1)[:1], transform=EAST)
    image, valid, notes = look(folder)
    assert (valid.mean() > 0.95, notes) == (True, [])
    half = image.shape[1] // 2
    assert np.ptp(image[:, : half - 3], axis=2).max() > 50
    assert np.ptp(image[:, half + 3 :], axis=2).max() == 0


def test_each_depth_has_its_own_stretch(folder, write, blobs, look):
    """A sheet of 16 bits does not darken the bytes beside it."""
    write(folder / "a.tif", blobs())
    write(folder / "b.tif", blobs(seed=1).astype(np.uint16) * 200 + 500, transform=EAST)
    image, _, _ = look(folder)
    half = image.shape[1] // 2
    for part in (image[:, : half - 3], image[:, half + 3 :]):
        assert 100 < part.mean() < 155
        assert part.std() > 40


def test_what_goes_for_many_is_said_once(folder, write, blobs, look):
    for i in range(3):
        bands = blobs(seed=i)
        bands[:, :, :96] = 0
        write(folder / f"{i}.tif", bands, transform=Affine(1, 0, 499_880 + 240 * i, 0, -1, 2_684_000))
    notes = look(folder)[2]
    assert len(notes) == 1
    assert "40% of 0.tif" in notes[0]
    assert "2 other rasters" in notes[0]


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("float32", -10_000), ("float32", -3.4e38), ("float64", 1e20), ("int32", -(2**31)), ("uint16", 65_535)],
)
def test_fill_that_nobody_declared_neither_shows_nor_stretches(tmp_path, write, blobs, look, dtype, fill):
    bands = (blobs().astype(dtype) * 13 + 900).astype(dtype)
    bands[:, 200:, 200:] = 60_000  # glare, which is not much
    filled = bands.copy()
    filled[:, :, :80] = fill
    image, valid, _ = look(write(tmp_path / "filled.tif", filled))
    expected, there, _ = look(write(tmp_path / "whole.tif", bands))
    assert valid.mean() == pytest.approx(2 / 3, abs=0.05)
    both = valid & there
    assert np.abs(image[both].astype(int) - expected[both]).mean() < 3


def test_bands_are_shown_by_their_descriptions(tmp_path, write, blobs, look):
    """As multispectral cameras write them: blue first, and no colours."""
    five = np.concatenate([blobs()[::-1], blobs(seed=1)[:2]])
    path = write(tmp_path / "five.tif", five, photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("Blue", "Green", "Red", "Red edge", "NIR")
    image, _, _ = look(path)
    expected, _, _ = look(write(tmp_path / "rgb.tif", blobs()))
    np.testing.assert_array_equal(image, expected)


def test_a_map_that_no_aircraft_sees_is_refused(tmp_path, write, blobs):
    path = write(tmp_path / "map.tif", blobs(), "EPSG:4326", Affine(0.01, 0, 120, 0, -0.01, 25))
    with pytest.raises(SourceUnreadable, match="m a pixel; photos from the air"):
        open_mosaic(path)
