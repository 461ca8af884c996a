import math

import pytest
from PIL import ExifTags

from service.imaging.lens import read_lens

BASE = ExifTags.Base
FILM_DIAGONAL_MM = 43.2666


def lens(size=(4000, 3000), text="", xmp=None, **tags):
    return read_lens(text, xmp or {}, {getattr(BASE, name): value for name, value in tags.items()}, size)


def angle_deg(width, focal):
    return math.degrees(2 * math.atan(width / (2 * focal)))


@pytest.mark.parametrize(
    ("size", "width_mm"),
    [
        ((6000, 4000), 36.0),  # 3:2, as film
        ((4000, 3000), 0.8 * FILM_DIAGONAL_MM),
        ((3000, 4000), 0.6 * FILM_DIAGONAL_MM),  # upright
        ((4000, 2250), 0.8 * FILM_DIAGONAL_MM),  # 16:9 of a 4:3 sensor
        ((1600, 900), 0.8 * FILM_DIAGONAL_MM),  # and its smaller copy
    ],
)
def test_the_35mm_focal_length_is_that_of_the_same_diagonal(size, width_mm):
    hfov, source = lens(size, FocalLengthIn35mmFilm=24)
    assert source == "film"
    assert hfov == pytest.approx(angle_deg(width_mm, 24), abs=0.01)


def test_a_digital_zoom_narrows_the_view():
    wide, narrow = (lens(FocalLengthIn35mmFilm=26, DigitalZoomRatio=zoom)[0] for zoom in (1.0, 2.0))
    assert math.tan(math.radians(wide / 2)) == pytest.approx(2 * math.tan(math.radians(narrow / 2)))
    assert lens(FocalLengthIn35mmFilm=26, DigitalZoomRatio=0)[0] == wide  # EXIF: 0 means that it was not used


@pytest.mark.parametrize(("unit", "mm"), [(2, 25.4), (3, 10.0), (4, 1.0)])
def test_focal_length_and_pixel_pitch(unit, mm):
    """A Canon S100: 7.44 mm wide, 5.2 mm focal length."""
    tags = {"FocalLength": 5.2, "FocalPlaneXResolution": 4000 / 7.44 * mm, "FocalPlaneResolutionUnit": unit}
    hfov, source = lens(**tags)
    assert source == "focal_plane"
    assert hfov == pytest.approx(angle_deg(7.44, 5.2))
    assert lens((1000, 750), ExifImageWidth=4000, **tags)[0] == pytest.approx(hfov)  # of a copy that was shrunk


def test_a_sensor_that_cannot_be_leaves_the_word_to_others():
    tags = {"FocalLength": 5.2, "FocalPlaneXResolution": 300.0, "FocalPlaneResolutionUnit": 2}
    assert lens(**tags) == (None, None)
    assert lens(FocalLengthIn35mmFilm=24, **tags)[1] == "film"


def test_what_was_measured_at_the_factory_comes_first():
    text = """<drone-skydio:CalibratedFocalLength rdf:parseType="Resource"><drone-skydio:X>2376.5</drone-skydio:X>
    <drone-skydio:Y>2376.5</drone-skydio:Y></drone-skydio:CalibratedFocalLength>"""
    hfov, source = lens((4056, 3040), text, FocalLengthIn35mmFilm=21)
    assert source == "calibrated"
    assert hfov == pytest.approx(angle_deg(4056, 2376.5))
    hfov, _ = lens((5472, 3648), xmp={"drone-dji:CalibratedFocalLength": "3666.666504"}, FocalLengthIn35mmFilm=24)
    assert hfov == pytest.approx(angle_deg(5472, 3666.666504))


@pytest.mark.parametrize("focal", [0, -24, "wide", float("nan"), 0.001, 1e9])
def test_garbage_is_no_field_of_view(focal):
    assert lens(FocalLengthIn35mmFilm=focal) == (None, None)
