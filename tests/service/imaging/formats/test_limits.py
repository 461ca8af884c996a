"""Files that cost more than they weigh: what is read of them is bounded, and what is counted is refused."""

import io

import hostile
import pytest
from PIL import Image

from service.errors import ImageTooComplex
from service.imaging.decode import open_photo
from service.imaging.formats import jpeg, png, tiff, webp
from service.imaging.formats.header import MAX_NOTE_BYTES

LIMIT = 10**8
REFUSED = {
    "jpeg-empty-segments": (jpeg.MAX_SEGMENTS, "segments"),
    "jpeg-tables": (jpeg.MAX_TABLES, "tables"),
    "png-empty-chunks": (png.MAX_CHUNKS, "chunks"),
    "png-empty-pixels": (png.MAX_CHUNKS, "chunks"),
    "webp-empty-chunks": (webp.MAX_CHUNKS, "chunks"),
    "tiff-strips": (tiff.MAX_PARTS, "strips or tiles"),
    "tiff-palette": (tiff.MAX_VALUES, "values"),
}


@pytest.fixture(scope="module")
def heavy():
    """Two megabytes do what sixty do; of tables it takes more."""
    return hostile.heavy(2) | {name: data for name, data in hostile.heavy(18).items() if name == "jpeg-tables"}


@pytest.mark.parametrize("name", REFUSED)
def test_more_parts_than_a_picture_needs_are_refused_before_decoding(heavy, monkeypatch, name):
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("it was opened"))
    limit, what = REFUSED[name]
    with pytest.raises(ImageTooComplex, match=f"more than {limit} {what}.*; save it") as caught:
        open_photo(heavy[name], LIMIT)
    assert caught.value.numbers["limit"] == limit < caught.value.numbers["actual"]


@pytest.mark.parametrize("name", sorted({*hostile.heavy(0)} - {*REFUSED}))
def test_of_metadata_no_more_than_its_beginning_is_read(heavy, name):
    data = heavy[name]
    file = open_photo(data, LIMIT)
    assert len(file.header.exif) <= MAX_NOTE_BYTES + 6
    assert len(file.header.xmp) <= MAX_NOTE_BYTES
    assert file.decode().image.size == (64, 64)


@pytest.mark.parametrize("name", sorted({*hostile.heavy(0)} - {*REFUSED, "tiff-xmp", "tiff-numbers"}))
def test_what_decodes_gets_no_metadata(heavy, name):
    pieces = open_photo(heavy[name], LIMIT).pieces
    assert sum(map(len, pieces)) < 20_000
    image = Image.open(io.BytesIO(b"".join(pieces)))
    image.load()
    assert not {"exif", "xmp", "comment", "icc_profile"} & {*image.info}


@pytest.mark.parametrize("name", ["tiff-xmp", "tiff-numbers"])
def test_of_a_tiff_only_tags_about_pixels_are_read(heavy, name):
    image = Image.open(io.BytesIO(b"".join(open_photo(heavy[name], LIMIT).pieces)))
    assert not {700, 33432} & {*image.tag_v2}


@pytest.mark.parametrize(("scans", "is_refused"), [(80, False), (200, True)])
def test_scans_are_counted(scans, is_refused):
    data = hostile.many_scans(scans, side=64)
    if is_refused:
        with pytest.raises(ImageTooComplex, match=r"more than 100 scans.*not progressive"):
            open_photo(data, LIMIT)
    else:
        file = open_photo(data, LIMIT)
        assert file.header.scans == data.count(b"\xff\xda")
        assert file.is_slow
        assert file.decode().image.size == (64, 64)


def test_scans_that_repeat_a_channel_are_counted_too():
    """Baseline files may have a scan for each channel, and libjpeg takes any number of them."""
    data = hostile.encoded(hostile.picture().convert("L"), "JPEG")
    start, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    frame = data.index(b"\xff\xc0")
    body = bytearray(data[frame : frame + 13])
    body[3], body[9] = 17, 3  # three channels
    three = bytes(body[:13]) + bytes([2, 0x11, 0, 3, 0x11, 0])
    whole = data[:frame] + three + data[frame + 13 : start] + data[start:end] * 150 + data[end:]
    with pytest.raises(ImageTooComplex, match="scans"):
        open_photo(whole, LIMIT)


def test_an_end_inside_a_table_hides_no_scans():
    data = hostile.many_scans(150, side=64)
    start = data.rindex(b"\xff\xda")
    comment = hostile.jpeg_segment(0xFE, b"\xff\xd9")
    with pytest.raises(ImageTooComplex, match="scans"):
        open_photo(data[:start] + comment + data[start:], LIMIT)
