"""The same map in every form: each pixel lies where it does in the GeoTIFF, and each form is known by its content."""

import json
import math
from contextlib import closing

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine
from rasterio.warp import transform as project

from service.maps.mosaic import open_mosaic

CRS = "EPSG:32651"
PLACE = Affine(0.5, 0, 499_880, 0, -0.5, 2_684_000)
SIDE = 320
ZOOM = 18  # 0.54 m a pixel here


@pytest.fixture
def geotiff(tmp_path, write, blobs):
    """160 m of soft spots, on the central meridian of its zone."""
    return write(tmp_path / "area.tif", blobs(SIDE, SIDE), CRS, PLACE, tiled=True, blockxsize=64, blockysize=64)


def corners(left=0, top=0, right=SIDE, bottom=SIDE):
    """``(lat, lon)`` of pixels' corners, clockwise from the top left."""
    columns, rows = np.array([left, right, right, left]), np.array([top, top, bottom, bottom])
    lons, lats = project(CRS, "EPSG:4326", PLACE.c + 0.5 * columns, PLACE.f - 0.5 * rows)
    return list(zip(lats, lons, strict=True))


def bounds(*pixels):
    (n, w), _, (s, e), _ = corners(*pixels)
    return w, s, e, n


def cog(geotiff, make):
    rasterio.shutil.copy(geotiff, geotiff.with_name("cog.tif"), driver="COG", compress="deflate")
    return geotiff.with_name("cog.tif")


def geopackage(geotiff, make):
    rasterio.shutil.copy(geotiff, geotiff.with_name("area.gpkg"), driver="GPKG", tile_format="PNG")
    return geotiff.with_name("area.gpkg")


def geopackage_in_mercator_tiles(geotiff, make):
    path = geotiff.with_name("tiles.gpkg")
    rasterio.shutil.copy(geotiff, path, driver="GPKG", tile_format="PNG", tiling_scheme="GoogleMapsCompatible")
    return path


def jpeg2000(geotiff, make):
    path = geotiff.with_name("area.jp2")
    rasterio.shutil.copy(geotiff, path, driver="JP2OpenJPEG", reversible="YES", quality="100")
    return path


def superoverlay(geotiff, make):
    rasterio.shutil.copy(geotiff, geotiff.with_name("area.kmz"), driver="KMLSUPEROVERLAY", format="PNG")
    return geotiff.with_name("area.kmz")


def mbtiles(geotiff, make):
    return make.mbtiles(geotiff.with_name("area.mbtiles"), make.tiles_of(geotiff, (17, 18)))


def folder_of_tiles(geotiff, make, **names):
    for (z, x, y), data in make.tiles_of(geotiff, (18,)).items():
        path = geotiff.parent / "pyramid" / str(z) / str(x) / f"{y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return geotiff.parent / "pyramid"


def zip_of_tiles(geotiff, make):
    tiles = make.tiles_of(geotiff, (17, 18, 19))
    return make.zip_of(geotiff.with_name("a.zip"), {f"t/{z}/{x}/{y}.png": data for (z, x, y), data in tiles.items()})


def zip_of_tiles_from_windows(geotiff, make):
    tiles = make.tiles_of(geotiff, (18,))
    names = {f"t\\{z}\\{x}\\{y}.png": data for (z, x, y), data in tiles.items()}
    return make.zip_of(geotiff.with_name("windows.zip"), names)


def tms_zip(geotiff, make):
    w, s, e, n = bounds()
    resource = f"""<TileMap version="1.0.0"><SRS>EPSG:3857</SRS>
    <BoundingBox minx="{w}" miny="{s}" maxx="{e}" maxy="{n}"/>
    <TileSets profile="mercator"><TileSet href="18" units-per-pixel="0.597" order="18"/></TileSets></TileMap>"""
    tiles = {f"{z}/{x}/{2**z - 1 - y}.png": data for (z, x, y), data in make.tiles_of(geotiff, (18,)).items()}
    return make.zip_of(geotiff.with_name("tms.zip"), {"tilemapresource.xml": resource.encode(), **tiles})


def kmz(geotiff, make):
    w, s, e, n = bounds()
    with rasterio.open(geotiff) as file:
        image = make.picture(file.read())
    kml = f"""<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><GroundOverlay>
    <Icon><href>files/map.png</href></Icon><LatLonBox><north>{n}</north><south>{s}</south><east>{e}</east><west>{w}</west>
    </LatLonBox></GroundOverlay></Document></kml>"""
    return make.zip_of(geotiff.with_name("overlay.kmz"), {"doc.kml": kml.encode(), "files/map.png": image})


def table(geotiff, make, folder=None):
    folder = geotiff.parent / "set"
    folder.mkdir()
    rows = ["Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long"]
    with rasterio.open(geotiff) as file:
        bands = file.read()
    for i, j in np.ndindex(2, 2):
        top, left, half = i * SIDE // 2, j * SIDE // 2, SIDE // 2
        (folder / f"sat_{i}{j}.png").write_bytes(make.picture(bands[:, top : top + half, left : left + half]))
        w, s, e, n = bounds(left, top, left + half, top + half)
        rows.append(f'"sat_{i}{j}.png", {n:.7f}, {w:.7f}, {s:.7f}, {e:.7f}')
    (folder / "map.csv").write_text("\n".join(rows))
    return folder / "map.csv"


def zipped_table(geotiff, make):
    folder = table(geotiff, make).parent
    return make.zip_of(geotiff.with_name("set.zip"), {f"set/{f.name}": f.read_bytes() for f in folder.iterdir()})


def zip_of_one(geotiff, make):
    entries = {"dop/area.tif": geotiff.read_bytes(), "dop/area.tfw": b"0.5\n0\n0\n-0.5\n0\n0", "dop/readme.txt": b"x"}
    return make.zip_of(geotiff.with_name("one.zip"), entries)


def zip_of_sheets(geotiff, make):
    return make.zip_of(geotiff.with_name("sheets.zip"), make.crops(geotiff, geotiff.parent / "sheets"))


def folder_of_sheets(geotiff, make):
    make.crops(geotiff, geotiff.parent / "sheets")
    return geotiff.parent / "sheets"


WORLD = "\n".join(map(str, (0.5, 0, 0, -0.5, PLACE.c + 0.25, PLACE.f - 0.25)))


def side_files(geotiff, ending, crs_file):
    with rasterio.open(geotiff) as file:
        bands, wkt = file.read(), file.crs.to_wkt()
    crs = {
        "prj": (".prj", wkt),
        "aux": (".png.aux.xml", "<PAMDataset><SRS>EPSG:32651</SRS></PAMDataset>"),
    }[crs_file]
    return bands, {f"photo{ending}": WORLD, f"photo{crs[0]}": crs[1]}


def image_with_world_file(geotiff, make, ending=".pgw", crs_file="prj"):
    bands, files = side_files(geotiff, ending, crs_file)
    (geotiff.parent / "photo.png").write_bytes(make.picture(bands))
    for name, text in files.items():
        (geotiff.parent / name).write_text(text)
    return geotiff.parent / "photo.png"


def image_with_aux(geotiff, make):
    return image_with_world_file(geotiff, make, ".wld", "aux")


def zipped_image_with_world_file(geotiff, make):
    bands, files = side_files(geotiff, ".pngw", "prj")
    entries = {name: text.encode() for name, text in files.items()} | {"photo.png": make.picture(bands)}
    return make.zip_of(geotiff.with_name("photo.zip"), entries)


def image_with_json(geotiff, make):
    with rasterio.open(geotiff) as file:
        (geotiff.parent / "j.png").write_bytes(make.picture(file.read()))
    (geotiff.parent / "j.json").write_text(json.dumps({"corners": corners()}))
    return geotiff.parent / "j.png"


FORMS = [
    cog, geopackage, geopackage_in_mercator_tiles, jpeg2000, superoverlay, mbtiles, folder_of_tiles, zip_of_tiles,
    zip_of_tiles_from_windows, tms_zip, kmz, table, zipped_table, zip_of_one, zip_of_sheets, folder_of_sheets,
    image_with_world_file, image_with_aux, zipped_image_with_world_file, image_with_json,
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_lies_where_the_geotiff_does(tmp_path, geotiff, make, read_all, shift_px, form):
    path = form(geotiff, make)
    with rasterio.open(geotiff) as file:
        bands = file.read()
    with closing(open_mosaic(path)) as mosaic:
        image, valid, window = read_all(mosaic, ZOOM)
        w, s, e, n = bounds()
        assert mosaic.bounds[0] <= w + 1e-6
        assert mosaic.bounds[1] <= s + 1e-6
        assert mosaic.bounds[2] >= e - 1e-6
        assert mosaic.bounds[3] >= n - 1e-6
        assert 0.2 < mosaic.gsd_m < 0.7
    off_px, off_brightness = shift_px(image, valid, window, ZOOM, bands, CRS, PLACE)
    assert off_px < 0.1
    assert off_brightness < 4
    area_px = (SIDE * 0.5 / (0.597164 * math.cos(math.radians(24.26)))) ** 2
    assert valid.sum() == pytest.approx(area_px, rel=0.03)  # no gaps between its parts


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form not in (folder_of_tiles, folder_of_sheets, table, image_with_world_file,
                                                    image_with_aux, image_with_json)]
)  # fmt: skip
def test_an_upload_is_known_by_its_content(tmp_path, geotiff, make, form):
    """Over HTTP a file lies under a name of ours, whatever its sender calls it."""
    upload = tmp_path / "imports" / "0123"
    upload.parent.mkdir()
    upload.write_bytes(form(geotiff, make).read_bytes())
    with closing(open_mosaic(upload, name="my map.bin")) as mosaic:
        assert mosaic.name == "my map"
        assert mosaic.bounds == pytest.approx(bounds(), abs=3e-3)
    assert [file.name for file in upload.parent.iterdir()] == ["0123"]


@pytest.mark.parametrize("bounds_told", [True, False])
@pytest.mark.parametrize("from_north", [True, False])
@pytest.mark.parametrize("scheme", ["xyz", "tms", None])
def test_rows_of_mbtiles_count_from_the_south_unless_user_or_bounds_say_otherwise(
    tmp_path, geotiff, make, from_north, bounds_told, scheme
):
    metadata = {"bounds": ",".join(map(str, bounds()))} if bounds_told else {}
    path = make.mbtiles(tmp_path / "a.mbtiles", make.tiles_of(geotiff, (18,)), from_north, **metadata)
    counted_from_north = {"xyz": True, "tms": False, None: from_north and bounds_told}[scheme]
    with closing(open_mosaic(path, scheme=scheme)) as mosaic:
        south, north = mosaic.bounds[1], mosaic.bounds[3]
    _, true_south, _, true_north = bounds()
    is_right = south - 0.002 < true_south < true_north < north + 0.002
    assert is_right == (counted_from_north == from_north)


def test_mbtiles_of_gdal_are_read_as_gdal_reads_them(tmp_path, geotiff, mercator):
    path = tmp_path / "gdal.mbtiles"
    rasterio.shutil.copy(geotiff, path, driver="MBTiles", tile_format="PNG")
    with rasterio.open(path) as file:
        expected, shown = file.read([1, 2, 3]), file.dataset_mask() > 0
        zoom = round(math.log2(2 * math.pi * 6_378_137 / 256 / file.res[0]))
        left, top = (round(float(v)) for v in mercator.pixel_of(*file.lnglat()[::-1], zoom))
    left, top = left - expected.shape[2] // 2, top - expected.shape[1] // 2
    with closing(open_mosaic(path)) as mosaic:
        image, valid = mosaic.read(zoom, left, top, *expected.shape[:0:-1])
    assert (valid & shown).sum() > 0.95 * shown.sum() > 10_000
    both = valid & shown
    np.testing.assert_array_equal(np.moveaxis(image, 2, 0)[:, both], expected[:, both])
