"""Images that are tiles already, named by z/x/y or listed in a table."""

import pytest
from PIL import Image

from service.errors import AerofixError, InvalidFootprint, InvalidParameter, SourceUnreadable
from service.ground.tile import Footprint
from service.maps.file_tiles import from_csv, from_zxy


def test_a_pyramid_is_ordered_by_number_and_other_files_are_ignored():
    files = ["9/10/2.png", "9/2/30.webp", "a/b.png", "9/2/x.png", "9/2/4.jpeg", "9/2/5.txt"]
    source = from_zxy(files, str.encode, "p")
    assert [source.label(i) for i in range(len(source))] == ["9/2/4.jpeg", "9/2/30.webp", "9/10/2.png"]
    assert source.read(0).entry == {"id": "p/9/2/4", "z": 9, "x": 2, "y": 4}
    assert source.read(0).image == b"9/2/4.jpeg"


def test_a_pyramid_must_be_one_and_not_empty():
    with pytest.raises(SourceUnreadable, match="the same tile"):
        from_zxy(["9/1/1.png", "old/9/1/1.jpg"], str.encode, "p")
    with pytest.raises(SourceUnreadable, match="no tiles named z/x/y"):
        from_zxy(["readme.txt"], str.encode, "p")
    with pytest.raises(InvalidParameter):
        from_zxy(["9/1/1.png"], str.encode, "x" * 190)


HEADERS = {
    "as documented": ("Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long", "{n},{w},{s},{e}"),
    "short": ("image;TL_lat;TL_lon;BR_lat;BR_lon", "{n};{w};{s};{e}"),
    "as UAV-VisLoc": ("mapname,LT_lat_map,LT_lon_map,RB_lat_map,RB_lon_map", "{n},{w},{s},{e}"),
    "upper left": (
        "file\tUpperLeftLatitude\tUpperLeftLongitude\tLowerRightLatitude\tLowerRightLongitude",
        "{n}\t{w}\t{s}\t{e}",
    ),
    "axis first": ("img, lat_ul, lng_ul, lat_lr, lng_lr", "{n}, {w}, {s}, {e}"),
    "edges": ("name,north,west,south,east", "{n},{w},{s},{e}"),
    "min and max": ("name,lat_max,lon_min,lat_min,lon_max", "{n},{w},{s},{e}"),
    "four corners": (
        "name,tl_lat,tl_lon,tr_lat,tr_lon,br_lat,br_lon,bl_lat,bl_lon",
        "{n},{w},{n},{e},{s},{e},{s},{w}",
    ),
}


@pytest.mark.parametrize(("header", "values"), HEADERS.values(), ids=HEADERS)
def test_columns_are_recognised_however_they_are_called(header, values):
    separator = next(c for c in ";\t," if c in header)
    box = {"n": 24.26, "w": 120.71, "s": 24.259, "e": 120.711}
    table = f"{header}\na.png{separator}{values.format(**box)}\n".encode()
    source = from_csv(table, "t.csv", ["a.png"], str.encode, "p")
    footprint = Footprint.parse(source.read(0).entry, 100, 100)
    assert footprint.bounds == pytest.approx((120.71, 24.259, 120.711, 24.26))
    assert source.read(0).entry["id"] == "p/a"


def test_other_columns_become_properties_and_an_id_is_taken_as_it_is():
    table = "\ufeffid,file,lat,lon,gsd_m,Season,Note\nmine,a.png,1,2,0.5,autumn,\n,b.png,1,2,0.5,,x\n".encode()
    source = from_csv(table, "t.csv", ["a.png", "b.png"], str.encode, "p")
    assert source.read(0).entry == {"id": "mine", "lat": 1, "lon": 2, "gsd_m": 0.5, "properties": {"Season": "autumn"}}
    assert source.read(1).entry["id"] == "p/b"
    assert source.read(1).entry["properties"] == {"Note": "x"}


def test_a_bad_row_is_named_and_stops_no_other():
    rows = ["a.png,1,1,2,2", "missing.png,1,1,2,2", ",1,1,2,2", "b.png,1,one,2,2", "", "b.png,1", "c.png,1,1,2,2"]
    table = "\n".join(["file,west,south,east,north", *rows]).encode()
    source = from_csv(table, "t.csv", ["a.png", "x/b.png", "c.png", "y/c.png"], str.encode, "p")
    assert len(source) == 6
    assert source.read(0).image == b"a.png"
    for i, error, says in [
        (1, InvalidParameter, "no image 'missing.png'"),
        (2, InvalidParameter, "names no image"),
        (3, InvalidFootprint, "south is 'one'"),
        (4, InvalidFootprint, "south is ''"),
    ]:
        with pytest.raises(error, match=says):
            source.read(i)
    assert source.label(1) == "t.csv line 3 (missing.png)"
    assert source.read(5).image == b"c.png"  # the whole name wins over the last part of another


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (b"", "CSV|empty"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"file,west\na.png,1", "Give a column Filename"),
        (b"west,south,east,north\n1,1,2,2", "Give a column Filename"),
        (b"file,west,south,east,north", "no rows"),
        (b"file,image,west,south,east,north\na,b,1,1,2,2", "file and image mean the same"),
        (b"file,west,south,east,north\na.png,1,1,2,2\na.png,1,1,2,2", "has the id p/a twice"),
        (b'file,west,south,east,north\n"' + b"x" * 200_000 + b'",1,1,2,2', "cannot be read as CSV"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(table, says):
    with pytest.raises(SourceUnreadable, match=says):
        from_csv(table, "t.csv", ["a.png"], str.encode, "p")


def test_a_file_that_goes_away_is_named():
    def gone(name):
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(AerofixError, match=r"9/1/1\.png cannot be read"):
        from_zxy(["9/1/1.png"], gone, "p").read(0)


@pytest.mark.parametrize(("opaque_rows", "is_kept"), [(0, False), (31, False), (33, True), (64, True)])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_mostly_transparent_tiles_are_left_out(encode_image, kind, opaque_rows, is_kept):
    image = Image.new("RGBA", (64, 64), (50, 90, 20, 0))
    image.paste((50, 90, 20, 255), (0, 0, 64, opaque_rows))
    data = encode_image(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert (from_zxy(["9/1/1.png"], lambda name: data, "p").read(0) is not None) == is_kept
