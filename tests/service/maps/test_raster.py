import json
import math
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.transform import Affine
from rasterio.warp import transform as reproject

from service.errors import InvalidFootprint, InvalidParameter, SourceUnreadable
from service.geo import haversine_m, offset
from service.ground.tile import Footprint
from service.maps.map_tiles import Cut, MapTiles
from service.maps.raster import open_map

UTM51 = "EPSG:32651"  # Taiwan
ORIGIN = (268_000.0, 2_684_000.0)
SIZE = 240


# on the central meridian of its zone, where the grid's north is true north
STRAIGHT = Affine(1, 0, 499_880, 0, -1, 2_684_000)


def from_origin(west, north, width, height):
    return Affine(width, 0, west, 0, -height, north)


def ramps(height=SIZE, width=SIZE, dtype=np.uint8):
    """Red says the column, green the row, blue is bright: the place can be read back from a pixel."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns, rows, np.full_like(rows, 200)]).astype(dtype)


def write(path, bands, crs=UTM51, transform=None, **profile):
    count, height, width = bands.shape
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype, **profile}
    if crs is not None:
        profile |= {"crs": crs, "transform": transform or from_origin(*ORIGIN, 1, 1)}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(bands)
    return path


@dataclass(frozen=True)
class Tile:
    id: str
    image: np.ndarray
    footprint: Footprint


def map_tiles(path, size_m=86.0, overlap=0.5, prefix=None, max_px=384, corners=None):
    cut = Cut((size_m,), overlap, max_px=max_px)
    return MapTiles(open_map(path, corners), cut, path.stem if prefix is None else prefix)


def read_tiles(path, *arguments, **options):
    with closing(map_tiles(path, *arguments, **options)) as source:
        pieces = [(source.label(i), source.piece(i)) for i in range(len(source))]
        return [Tile(name, *piece) for name, piece in pieces if piece is not None]


def full(tiles):
    return [tile for tile in tiles if tile.image[..., 2].min() > 0]


def assert_pixels_lie_where_the_footprint_says(tiles, crs, transform, tolerance_px=1.0):
    """Decode the place from the colours at the tile's centre and compare with the footprint's."""
    for tile in full(tiles):
        h, w = tile.image.shape[:2]
        middle = tile.image[h // 2 - 1 : h // 2 + 1, w // 2 - 1 : w // 2 + 1].reshape(-1, 3).mean(axis=0)
        lat, lon = tile.footprint.centre
        (x,), (y,) = reproject("EPSG:4326", crs, [lon], [lat])
        back = ~transform
        column, row = back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f
        assert middle[0] == pytest.approx(column - 0.5, abs=tolerance_px)
        assert middle[1] == pytest.approx(row - 0.5, abs=tolerance_px)
        assert middle[2] == pytest.approx(200, abs=1)


COS, SIN = math.cos(math.radians(30)), math.sin(math.radians(30))
MAPS = {
    "utm": (UTM51, from_origin(*ORIGIN, 1, 1)),
    "web-mercator-60-north": ("EPSG:3857", from_origin(1.2e6, 8.4e6, 2, 2)),
    "degrees": ("EPSG:4326", from_origin(120.7, 24.3, 1e-5, 1e-5)),
    "polar-stereographic": ("EPSG:3031", from_origin(1.5e6, -1.6e6, 1, 1)),
    "turned": (UTM51, Affine(COS, SIN, ORIGIN[0], SIN, -COS, ORIGIN[1])),
}


@pytest.mark.parametrize("name", MAPS)
def test_pixels_lie_where_the_footprint_says(tmp_path, name):
    crs, transform = MAPS[name]
    path = write(tmp_path / "map.tif", ramps(), crs, transform)
    tiles = read_tiles(path, 60.0)
    assert len(full(tiles)) >= 4
    assert_pixels_lie_where_the_footprint_says(tiles, crs, transform)
    assert {round(tile.footprint.side_m, 1) for tile in tiles} == {60.0}


def test_tiles_are_north_up_and_named_by_row_and_column(tmp_path):
    tiles = read_tiles(write(tmp_path / "taichung.tif", ramps()), 86.0)
    assert tiles[0].id == "taichung/86m-50/r00c00"
    assert tiles[-1].id == "taichung/86m-50/r04c04"
    for tile in tiles:
        west, south, east, north = tile.footprint.bounds
        corners = [(north, west), (north, east), (south, east), (south, west)]
        assert np.abs(np.array(tile.footprint.corners) - corners).max() < 1e-7  # a centimetre
        assert tile.image.dtype == np.uint8
        assert tile.image.shape == (86, 86, 3)
        assert tile.footprint.gsd_m == pytest.approx(1, rel=1e-3)
    assert read_tiles(tmp_path / "taichung.tif", prefix="a/b")[0].id == "a/b/86m-50/r00c00"


def test_every_point_of_a_map_lies_in_a_tile(tmp_path):
    path = write(tmp_path / "map.tif", ramps(200, 333), transform=from_origin(*ORIGIN, 1, 1))
    rng = np.random.default_rng(0)
    for size_m, overlap in ((86, 0.5), (70, 0), (150, 0.25), (500, 0.5)):
        boxes = np.array([tile.footprint.bounds for tile in read_tiles(path, size_m, overlap)])
        x, y = ORIGIN[0] + 333 * rng.random(500), ORIGIN[1] - 200 * rng.random(500)
        lons, lats = map(np.array, reproject(UTM51, "EPSG:4326", x, y))
        in_lon = (boxes[:, 0, None] - 1e-8 <= lons) & (lons <= boxes[:, 2, None] + 1e-8)
        in_lat = (boxes[:, 1, None] - 1e-8 <= lats) & (lats <= boxes[:, 3, None] + 1e-8)
        assert (in_lon & in_lat).any(axis=0).all()


def test_count_is_the_number_of_tiles_of_a_full_map(tmp_path):
    path = write(tmp_path / "map.tif", ramps())
    with closing(map_tiles(path)) as source:
        assert len(source) == len(read_tiles(path)) == 25


def test_a_map_smaller_than_a_tile_is_one_tile(tmp_path):
    (tile,) = read_tiles(write(tmp_path / "map.tif", ramps(50, 50), UTM51, STRAIGHT), 86.0)
    assert tile.footprint.side_m == pytest.approx(50, abs=0.1)


def test_fine_maps_are_read_at_max_px(tmp_path):
    transform = from_origin(499_988, 2_684_000, 0.1, 0.1)
    (tile,) = read_tiles(write(tmp_path / "map.tif", ramps(), transform=transform), 86.0, max_px=96)
    assert tile.image.shape == (96, 96, 3)
    assert tile.footprint.gsd_m == pytest.approx(24 / 96, rel=2e-3)
    assert_pixels_lie_where_the_footprint_says([tile], UTM51, transform, tolerance_px=1.5)


def half_empty():
    """Data on the west half."""
    valid = np.zeros((SIZE, SIZE), bool)
    valid[:, : SIZE // 2] = True
    return valid


@pytest.mark.parametrize("kind", ["alpha", "nodata", "mask"])
def test_empty_parts_are_left_out(tmp_path, kind):
    valid, bands, path = half_empty(), ramps() + np.uint8(1), tmp_path / "map.tif"
    if kind == "alpha":
        write(
            path, np.concatenate([bands, valid[None] * np.uint8(255)]), UTM51, STRAIGHT, photometric="RGB", alpha="YES"
        )
    elif kind == "nodata":
        write(path, bands * valid, UTM51, STRAIGHT, nodata=0)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write(path, bands, UTM51, STRAIGHT)
            with rasterio.open(path, "r+") as file:
                file.write_mask(valid)
    tiles = read_tiles(path, 40.0, 0)
    with closing(map_tiles(path, 40.0, 0)) as source:
        assert len(source) > len(tiles)
    assert len({tile.id.split("c")[-1] for tile in tiles}) == 3  # 120 m of data in tiles of 40 m
    assert all((tile.image[..., 2] > 0).mean() >= 0.5 for tile in tiles)
    assert all((tile.image[..., 2] == 201).mean() > 0.9 for tile in tiles if tile.id.endswith("c01"))


def test_empty_pixels_of_a_kept_tile_are_black(tmp_path):
    valid = half_empty()
    bands = np.concatenate([ramps(), valid[None] * np.uint8(255)])
    tiles = read_tiles(write(tmp_path / "map.tif", bands, UTM51, STRAIGHT, photometric="RGB", alpha="YES"), 100.0, 0.5)
    cut = next(tile for tile in tiles if tile.id.endswith("c01"))
    assert cut.image[:, 80:].max() == 0
    assert cut.image[:, :60].min(axis=(0, 1))[2] > 190


def test_grey_maps_become_rgb(tmp_path):
    tiles = read_tiles(write(tmp_path / "map.tif", ramps()[:1]), 86.0)
    assert tiles[0].image.shape == (86, 86, 3)
    assert np.ptp(tiles[0].image, axis=2).max() == 0
    assert np.ptp(tiles[0].image) > 50


def test_colours_are_found_by_their_interpretation(tmp_path):
    path = write(tmp_path / "map.tif", np.stack([np.full((90, 90), v, np.uint8) for v in (10, 20, 30, 40)]))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert read_tiles(path)[0].image[40, 40].tolist() == [40, 30, 20]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32])
def test_other_depths_are_stretched_between_percentiles(tmp_path, dtype):
    values = np.linspace(1000, 9000, SIZE * SIZE).reshape(1, SIZE, SIZE).astype(dtype)
    if dtype is np.float32:
        values[0, 100, 100] = np.nan
    tiles = read_tiles(write(tmp_path / "map.tif", values, UTM51, STRAIGHT), 240.0)
    image = tiles[0].image[..., 0].astype(float)
    # 2 % of the values lie below black, half below middle grey, 2 % above white
    assert (image == 0).mean() == pytest.approx(0.02, abs=0.01)
    assert (image == 255).mean() == pytest.approx(0.02, abs=0.01)
    assert np.median(image) == pytest.approx(127.5, abs=3)


def image_with(tmp_path, entry, name="map.json", width=SIZE, height=SIZE):
    Image.fromarray(np.moveaxis(ramps(height, width), 0, 2)).save(tmp_path / "map.png")
    (tmp_path / name).write_text(json.dumps(entry))
    return tmp_path / "map.png"


CORNERS = [
    [float(v) for v in offset(24.26, 120.72, e, n)] for e, n in ((-120, 120), (120, 120), (120, -120), (-120, -120))
]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("map.json", {"corners": CORNERS}),
        ("corners.json", {"bounds": [CORNERS[0][1], CORNERS[2][0], CORNERS[2][1], CORNERS[0][0]], "note": "x"}),
        ("map.json", {"corners_lonlat": {k: c[::-1] for k, c in zip(("TL", "TR", "BR", "BL"), CORNERS, strict=True)}}),
    ],
)
def test_images_with_corners_beside_them(tmp_path, name, entry):
    tiles = read_tiles(image_with(tmp_path, entry, name), 60.0)
    (left, top), (right, bottom) = CORNERS[0][::-1], CORNERS[2][::-1]
    transform = Affine((right - left) / SIZE, 0, left, 0, (bottom - top) / SIZE, top)
    assert len(tiles) == 49
    assert_pixels_lie_where_the_footprint_says(tiles, "EPSG:4326", transform)


def test_an_image_over_the_antimeridian(tmp_path):
    path = image_with(tmp_path, {"bounds": [179.9988, -16.502, -179.9988, -16.4996]})
    tiles = read_tiles(path, 60.0)
    assert_both_sides_of_the_antimeridian(tiles)


@pytest.mark.parametrize("west", [179.9988, -180.0012])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269"])
def test_a_map_in_degrees_over_the_antimeridian(tmp_path, crs, west):
    path = write(tmp_path / "map.tif", ramps(), crs, from_origin(west, -16.4996, 1e-5, 1e-5))
    assert_both_sides_of_the_antimeridian(read_tiles(path, 60.0))


def assert_both_sides_of_the_antimeridian(tiles):
    for is_west, west in ((True, 179.9988), (False, -180.0012)):
        side = [tile for tile in full(tiles) if (tile.footprint.centre[1] > 0) == is_west]
        assert len(side) >= 16
        assert_pixels_lie_where_the_footprint_says(side, "EPSG:4326", from_origin(west, -16.4996, 1e-5, 1e-5))


def test_a_map_that_its_projection_tears_apart_names_the_way_out(tmp_path):
    path = write(tmp_path / "map.tif", ramps(), "EPSG:3857", from_origin(20_037_408, -1.8e6, 1, 1))
    with pytest.raises(SourceUnreadable, match="antimeridian; export it again in its UTM zone"):
        open_map(path)


def test_a_turned_image_is_turned_north_up(tmp_path):
    """The image's top-left corner is the south-west one: its columns run north."""
    path = image_with(tmp_path, {"corners": [CORNERS[3], CORNERS[0], CORNERS[1], CORNERS[2]]})
    tiles = {tile.id: tile for tile in read_tiles(path, 60.0, 0)}
    north, south = tiles["map/60m-0/r00c00"].image, tiles["map/60m-0/r03c00"].image
    assert north[..., 0].mean() > south[..., 0].mean() + 100
    assert north[5, 30, 0] > north[55, 30, 0] + 40
    assert tiles["map/60m-0/r00c03"].image[..., 1].mean() > north[..., 1].mean() + 100


def test_rounded_corners_are_fitted(tmp_path):
    """Corners that are 3 m off, each its own way, move tiles by no more than that."""
    rng = np.random.default_rng(0)
    rough = [[float(v) for v in offset(*corner, *rng.uniform(-3, 3, 2))] for corner in CORNERS]
    exact = read_tiles(image_with(tmp_path, {"corners": CORNERS}), 240.0)[0].footprint.centre
    fitted = read_tiles(image_with(tmp_path, {"corners": rough}), 240.0)[0].footprint.centre
    assert 0 < haversine_m(*exact, *fitted) < 4.3


def test_explicit_corners_win_over_the_georeference(tmp_path):
    path = write(tmp_path / "map.tif", ramps())
    (tmp_path / "where.json").write_text(json.dumps({"corners": CORNERS}))
    tile = read_tiles(path, 240.0, corners=tmp_path / "where.json")[0]
    assert haversine_m(*tile.footprint.centre, 24.26, 120.72) < 1


def test_ground_control_points_are_a_georeference(tmp_path):
    path, gcps = tmp_path / "map.tif", []
    for (lat, lon), (row, column) in zip(CORNERS, ((0, 0), (0, SIZE), (SIZE, SIZE), (SIZE, 0)), strict=True):
        gcps.append(rasterio.control.GroundControlPoint(row, column, lon, lat))
    profile = {"count": 3, "height": SIZE, "width": SIZE, "dtype": np.uint8}
    with rasterio.open(path, "w", driver="GTiff", gcps=gcps, crs="EPSG:4326", **profile) as file:
        file.write(ramps())
    tiles = read_tiles(path, 60.0)
    (left, top), (right, bottom) = CORNERS[0][::-1], CORNERS[2][::-1]
    transform = Affine((right - left) / SIZE, 0, left, 0, (bottom - top) / SIZE, top)
    assert_pixels_lie_where_the_footprint_says(tiles, "EPSG:4326", transform)


def test_an_image_without_corners_says_how_to_give_them(tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "map.png")
    with pytest.raises(SourceUnreadable, match=r"map\.json or corners\.json.*clockwise from top-left"):
        open_map(tmp_path / "map.png")


@pytest.mark.parametrize(
    ("entry", "error", "says"),
    [
        ("[1, 2", SourceUnreadable, "cannot be read as corners"),
        ({"corners_lonlat": {"TL": [1, 2]}}, SourceUnreadable, "cannot be read as corners"),
        ([1, 2], InvalidFootprint, "exactly one"),
        ({}, InvalidFootprint, "exactly one"),
        ({"corners": CORNERS[::-1]}, InvalidFootprint, "counter-clockwise"),
        ({"corners": [CORNERS[0], [24.2605, 120.7203], *CORNERS[2:]]}, InvalidFootprint, "straight from above"),
    ],
)
def test_bad_corners_say_what_is_wrong(tmp_path, entry, error, says):
    path = image_with(tmp_path, entry)
    if isinstance(entry, str):
        (tmp_path / "map.json").write_text(entry)
    with pytest.raises(error, match=says):
        open_map(path)


def test_files_that_are_no_maps(tmp_path):
    (tmp_path / "map.tif").write_bytes(b"II*\0 not really")
    for name in ("map.tif", "missing.tif"):
        with pytest.raises(SourceUnreadable, match=f"{name} cannot be read as a map"):
            open_map(tmp_path / name)


def test_damaged_maps_are_refused_when_they_are_read(tmp_path):
    tif = write(tmp_path / "map.tif", ramps(), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    tif.write_bytes(tif.read_bytes()[:-200])
    jpeg = tmp_path / "map.jpg"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[: jpeg.stat().st_size // 2])
    (tmp_path / "corners.json").write_text(json.dumps({"corners": CORNERS}))
    for path in (tif, jpeg):
        with pytest.raises(SourceUnreadable, match="cannot be read as a map"):
            read_tiles(path)


def test_palettes_name_the_command_that_expands_them(tmp_path):
    path = write(tmp_path / "map.tif", ramps()[:1], photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (255, 0, 0, 255)})
    with pytest.raises(SourceUnreadable, match=r"gdal_translate -expand rgb map\.tif"):
        open_map(path)


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_name_the_command_that_makes_a_picture_of_them(tmp_path, dtype):
    path = write(tmp_path / "radar.tif", ramps()[:1].astype(np.complex64), dtype=dtype)
    with pytest.raises(SourceUnreadable, match=r"gdal_translate DERIVED_SUBDATASET:AMPLITUDE:radar\.tif"):
        open_map(path)


def test_a_map_off_the_earth_is_refused(tmp_path):
    path = write(tmp_path / "map.tif", ramps(), "EPSG:4326", from_origin(100, 5000, 1, 1))
    with pytest.raises(SourceUnreadable, match=r"map\.tif"):
        open_map(path)


@pytest.mark.parametrize("options", [{"overlap": 1.0}, {"size_m": 0}, {"max_px": 1}, {"prefix": "a\n"}])
def test_parameters_are_checked(tmp_path, options):
    with pytest.raises(InvalidParameter):
        map_tiles(write(tmp_path / "map.tif", ramps()), **options)


def test_nothing_is_written_beside_the_map(tmp_path):
    write(tmp_path / "map.tif", ramps(dtype=np.uint16))
    image_with(tmp_path, {"corners": CORNERS})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    read_tiles(tmp_path / "map.tif")
    read_tiles(tmp_path / "map.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
