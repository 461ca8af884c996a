"""Maps from strangers: nothing but the file itself is opened, nothing takes long, everything ends in words of ours."""

import http.server
import io
import os
import threading
from contextlib import closing

import numpy as np
import pytest
import rasterio.shutil
from PIL import Image
from rasterio.transform import Affine

from service.errors import AerofixError, SourceUnreadable, UnsupportedMediaType
from service.maps.mosaic import open_mosaic
from service.maps.table import read_rows

CRS, PLACE = "EPSG:32651", Affine(1, 0, 499_880, 0, -1, 2_684_000)


@pytest.fixture
def visits():
    """A server on this machine, and the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def vrt(source):
    return f"""<VRTDataset rasterXSize="240" rasterYSize="240"><SRS>EPSG:32651</SRS>
    <GeoTransform>499880, 1, 0, 2684000, 0, -1</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
    <SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
    </VRTRasterBand></VRTDataset>"""


@pytest.mark.parametrize("name", ["x.tif", "x.vrt", "x.png", "x"])
def test_a_vrt_in_disguise_is_not_opened(tmp_path, write, blobs, visits, name):
    """From the command line as over HTTP."""
    port, asked = visits
    secret = write(tmp_path / "secret.tif", blobs())
    for source in (secret, f"/vsicurl/http://127.0.0.1:{port}/map.tif"):
        (tmp_path / name).write_text(vrt(source))
        with pytest.raises(UnsupportedMediaType, match="gdal_translate"):
            open_mosaic(tmp_path / name)
    assert asked == []


def test_a_zip_with_a_vrt_is_read_without_it(tmp_path, write, blobs, make):
    secret = write(tmp_path / "secret.tif", blobs())
    path = make.zip_of(tmp_path / "a.zip", {"map.vrt": vrt(secret).encode(), "map.tif": vrt(secret).encode()})
    with pytest.raises(SourceUnreadable, match=r"map\.tif is not a raster of a kind that is read here"):
        open_mosaic(path)


def test_side_files_name_no_other_files(tmp_path, write, blobs, make):
    """An .aux.xml that would bring a mask or overviews from elsewhere, a world file that is a link, XML entities."""
    bands = blobs()
    image = make.picture(bands)
    secret = tmp_path / "secret.txt"
    secret.write_text("1\n0\n0\n-1\n499880.5\n2683999.5")
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "map.png").write_bytes(image)
    (folder / "map.pgw").symlink_to(secret)
    with pytest.raises(SourceUnreadable, match="does not say where it lies"):
        open_mosaic(folder / "map.png")
    bomb = b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><PAMDataset><SRS>&a;</SRS></PAMDataset>'
    (folder / "map.png.aux.xml").write_bytes(bomb)
    with pytest.raises(SourceUnreadable, match="XML entities"):
        open_mosaic(folder / "map.png")
    (folder / "map.png.aux.xml").write_bytes(b"<" * 2**21)
    with pytest.raises(SourceUnreadable, match="1048576 bytes"):
        open_mosaic(folder / "map.png")


def test_nothing_is_written_beside_a_map(tmp_path, write, blobs, read_all):
    folder = tmp_path / "f"
    folder.mkdir()
    path = write(folder / "map.tif", blobs())
    with closing(open_mosaic(path)) as mosaic:
        read_all(mosaic, 15)
    assert os.listdir(folder) == ["map.tif"]


KML = """<kml><GroundOverlay><Icon><href>{}</href></Icon><LatLonBox><north>1.002</north><south>1</south>
<east>1.002</east><west>1</west></LatLonBox></GroundOverlay></kml>"""


def test_pictures_of_a_kmz_come_from_within(tmp_path, blobs, make, visits):
    port, asked = visits
    (tmp_path / "secret.png").write_bytes(make.picture(blobs()))
    for href, says in (
        ("../secret.png", "no picture"),
        (str(tmp_path / "secret.png"), "no picture"),
        (f"http://127.0.0.1:{port}/map.png", "on the network"),
        ("/vsicurl/http:/x", "no picture"),
        ("", "no picture"),
    ):
        path = make.zip_of(tmp_path / "a.kmz", {"doc.kml": KML.format(href).encode()})
        with pytest.raises(SourceUnreadable, match=says):
            open_mosaic(path)
    assert asked == []


def test_an_upload_sees_no_other_uploads(tmp_path, blobs, make):
    """A table or a KML alone names pictures that it cannot have brought."""
    (tmp_path / "1111").write_bytes(make.picture(blobs()))
    (tmp_path / "2222").write_text("Filename,west,south,east,north\n1111,1,1,1.002,1.002\n")
    for name in ("map.csv", "map.kml"):
        with pytest.raises(UnsupportedMediaType, match="zip it together with them"):
            open_mosaic(tmp_path / "2222", name=name)


def test_rows_of_a_table_name_nothing_outside(tmp_path, blobs, make):
    (tmp_path / "secret.png").write_bytes(make.picture(blobs()))
    rows = "Filename,west,south,east,north\n../secret.png,1,1,1.002,1.002\n/etc/passwd,1,1,2,2\n"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "map.csv").write_text(rows)
    with pytest.raises(SourceUnreadable, match=r"no image '\.\./secret\.png'"):
        open_mosaic(tmp_path / "set" / "map.csv")


def test_the_delimiter_of_a_table_is_chosen_in_one_pass():
    for delimiter in ",;\t|":
        rows = read_rows(f"a{delimiter}b\n1{delimiter}2\n".encode(), "t.csv")
        assert rows == [(1, ["a", "b"]), (2, ["1", "2"])]
    hostile = ("a,b" * 20_000 + "\n1,2\n").encode()  # ``csv.Sniffer`` takes half a minute for it
    assert len(read_rows(hostile, "t.csv")) == 2
    with pytest.raises(SourceUnreadable, match="line of over 65536"):
        read_rows(b"a," * 100_000, "t.csv")
    with pytest.raises(SourceUnreadable, match="save it as UTF-8"):
        read_rows(b"\xff\xfe\x00", "t.csv")
    with pytest.raises(SourceUnreadable, match="empty"):
        read_rows(b"\n\n", "t.csv")


def test_a_view_without_an_end_is_stopped(tmp_path, monkeypatch):
    import sqlite3

    monkeypatch.setattr("service.maps.sqlite.MAX_STEPS", 3_000_000)
    with closing(sqlite3.connect(tmp_path / "evil.mbtiles")) as file:
        file.execute("CREATE TABLE metadata (name text, value text)")
        file.execute(
            "CREATE VIEW tiles AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT 1 AS zoom_level, i AS tile_column, 1 AS tile_row, x'00' AS tile_data FROM n WHERE i < 0"
        )
    with pytest.raises(SourceUnreadable, match="damaged"):
        open_mosaic(tmp_path / "evil.mbtiles")


def mutants(data, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(data)
        for at in rng.integers(0, min(len(data), 1200) if rng.random() < 0.7 else len(data), rng.integers(1, 6)):
            changed[at] = rng.integers(256)
        if rng.random() < 0.2:
            changed = changed[: rng.integers(1, len(changed))]
        yield bytes(changed)


def forms(tmp_path, write, blobs, make):
    bands = blobs(64, 64)
    small = {"crs": CRS, "transform": PLACE, "tiled": True, "blockxsize": 16, "blockysize": 16}
    for name, more in (("a", {}), ("b", {"compress": "deflate"}), ("c", {"compress": "lzw", "interleave": "pixel"}),
                       ("d", {"bigtiff": "yes"})):  # fmt: skip
        yield write(tmp_path / f"{name}.tif", bands, **(small | more)).read_bytes()
    tiles = {(18, 1, 1): make.picture(blobs(64, 64))}
    yield make.mbtiles(tmp_path / "a.mbtiles", tiles).read_bytes()
    for driver, suffix in (("GPKG", "gpkg"), ("JP2OpenJPEG", "jp2")):
        rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / f"a.{suffix}", driver=driver)
        yield (tmp_path / f"a.{suffix}").read_bytes()
    entries = {"doc.kml": KML.format("a.png").encode(), "a.png": make.picture(bands)}
    yield make.zip_of(tmp_path / "a.kmz", entries).read_bytes()
    yield make.zip_of(tmp_path / "a.zip", {"a.tif": (tmp_path / "b.tif").read_bytes()}).read_bytes()


def test_mutated_maps_end_in_our_words(tmp_path, write, blobs, make):
    path = tmp_path / "m"
    read, said = 0, []
    for data in forms(tmp_path, write, blobs, make):
        for mutant in mutants(data, 25):
            path.write_bytes(mutant)
            try:
                with closing(open_mosaic(path, name="m.tif")) as mosaic:
                    west, _, _, north = mosaic.bounds
                    world = 256 << 17
                    left = int((west + 180) / 360 * world)
                    top = int((1 - np.arcsinh(np.tan(np.radians(north))) / np.pi) / 2 * world)
                    image, valid = mosaic.read(17, left, top, 64, 64)
                    assert image.shape == (64, 64, 3)
                    assert not image[~valid].any()
                    read += 1
            except AerofixError as error:
                said.append(error.detail)
    assert read > 30
    assert len(said) > 30
    assert not any(inner in sentence for sentence in said for inner in (str(tmp_path), "/proc/"))


def test_a_tile_that_is_a_bomb_is_left_out(tmp_path, blobs, make):
    """A tile of 30,000 x 30,000 pixels of one colour is refused by its header."""
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    tiles = {(18, 1, y): make.picture(blobs(64, 64, seed=y)) for y in range(3)} | {(18, 2, 1): out.getvalue()}
    path = make.zip_of(tmp_path / "a.zip", {f"{z}/{x}/{y}.png": data for (z, x, y), data in tiles.items()})
    with closing(open_mosaic(path)) as mosaic:
        _, valid = mosaic.read(18, 256, 0, 512, 768)
        assert valid[2:-2, 2:254].all()
        assert not valid[:, 258:].any()
        assert "1 of the 4 tiles cannot be decoded" in mosaic.notes[-1]


def test_what_is_damaged_is_told_and_not_that_something_is(tmp_path, write, blobs, read_all):
    whole = write(tmp_path / "area.tif", blobs(512, 512), CRS, PLACE, compress="deflate", tiled=True).read_bytes()
    middle = len(whole) // 2
    path = tmp_path / "0123456789abcdef"  # as uploads lie there, under their id
    path.write_bytes(whole[:middle] + bytes(255 - byte for byte in whole[middle:]))
    with pytest.raises(SourceUnreadable) as caught, closing(open_mosaic(path, name="area.tif")) as mosaic:
        read_all(mosaic, 18)
    told = caught.value.detail
    assert "Decod" in told
    assert not any(word in told for word in ("previous exception", path.name, str(tmp_path)))
