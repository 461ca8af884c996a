"""When a map's pictures were taken."""

from contextlib import closing

import pytest
import rasterio

from service.errors import InvalidParameter
from service.importing.options import MapOptions
from service.maps.dates import check_date
from service.maps.mosaic import open_mosaic


def dated(path, **tags):
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns=tags.pop("ns", None), **tags)
    return path


def day_of(path):
    with closing(open_mosaic(path)) as mosaic:
        return mosaic.date


@pytest.mark.parametrize(
    ("stated", "day"),
    [
        ("2024:05:17 10:30:00", "2024-05-17"),
        ("2024-05-17T10:30:00Z", "2024-05-17"),
        ("0000:00:00 00:00:00", None),
        ("2024:13:40 10:30:00", None),
        ("in spring", None),
    ],
)
def test_a_tiff_tells_the_day(tmp_path, write, blobs, stated, day):
    assert day_of(dated(write(tmp_path / "map.tif", blobs()), TIFFTAG_DATETIME=stated)) == day


def test_a_file_without_tags_has_none(tmp_path, write, blobs):
    assert day_of(write(tmp_path / "map.tif", blobs())) is None


def test_when_it_was_taken_counts_more_than_when_it_was_written(tmp_path, write, blobs):
    path = dated(write(tmp_path / "map.tif", blobs()), TIFFTAG_DATETIME="2025:01:01 00:00:00")
    assert day_of(dated(path, ns="IMAGERY", ACQUISITIONDATETIME="2024-05-17 09:00:00")) == "2024-05-17"


def test_several_rasters_have_a_first_and_a_last_day(tmp_path, write, blobs):
    folder = tmp_path / "sheets"
    folder.mkdir()
    for name, day in (("a", "2024:05:19"), ("b", "2024:05:17"), ("c", "2024:05:17")):
        dated(write(folder / f"{name}.tif", blobs()), TIFFTAG_DATETIME=f"{day} 12:00:00")
    write(folder / "d.tif", blobs())
    assert day_of(folder) == "2024-05-17/2024-05-19"
    (folder / "a.tif").unlink()
    assert day_of(folder) == "2024-05-17"


@pytest.mark.parametrize("text", ["2024", "2024-05", "2024-02-29", "2023-12-31/2024-01-02"])
def test_what_may_be_said(text):
    check_date(text)


@pytest.mark.parametrize(
    "text",
    ["", "24", "2023-02-29", "2024-5-1", "17.05.2024", "2024-05-17/", "2024-06/2024-05", "0000", "2024-05-17T1"],
)
def test_what_is_no_date_is_told_how_to_write_one(text):
    with pytest.raises(InvalidParameter, match="2024-05-17"):
        check_date(text)


def test_a_map_that_is_extended_keeps_its_date():
    with pytest.raises(InvalidParameter, match="leave the date out"):
        MapOptions(map="town", extend=True, date="2024")
