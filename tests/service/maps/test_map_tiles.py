"""Maps cut into layers, from their overviews, without ever being in memory as a whole."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from service.errors import InvalidParameter, SourceUnreadable, UnsupportedMediaType
from service.ground.tile import Footprint
from service.maps.map_tiles import Cut
from service.maps.sources import open_tiles, open_upload

UTM51 = "EPSG:32651"


def write(path, bands, gsd_m=1.0, **profile):
    count, height, width = bands.shape
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype, "crs": UTM51, **profile}
    transform = Affine(gsd_m, 0, 499_880, 0, -gsd_m, 2_684_000)
    with rasterio.open(path, "w", driver="GTiff", transform=transform, **profile) as file:
        file.write(bands)
    return path


@pytest.fixture
def plain():
    return np.full((3, 256, 256), 100, np.uint8)


def test_layers_of_several_sizes_have_ids_and_places_of_their_own(tmp_path, plain):
    path = write(tmp_path / "map.tif", plain)
    with closing(open_tiles(path, Cut((64.0, 128.0, 64.0), 0.5, "town"))) as source:
        read = [source.read(i) for i in range(len(source))]
        labels = [source.label(i) for i in range(len(source))]
    assert labels == [tile.entry["id"] for tile in read]
    assert len(set(labels)) == len(labels) == 49 + 9
    assert (labels[0], labels[49], labels[-1]) == ("town/64m-50/r00c00", "town/128m-50/r00c00", "town/128m-50/r02c02")
    sides = [Footprint.from_corners(tile.entry["corners"], 64, 64).side_m for tile in read]
    np.testing.assert_allclose(sides, [64] * 49 + [128] * 9, rtol=1e-3)
    with pytest.raises(IndexError):
        source.label(58)


def test_places_can_be_read_in_any_order(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "map.tif", rng.integers(0, 256, (3, 256, 256), dtype=np.uint8))
    cut = Cut((64.0, 100.0), 0.25)
    with closing(open_tiles(path, cut)) as source:
        in_order = [source.read(i) for i in range(len(source))]
    with closing(open_tiles(path, cut)) as source:
        for i in rng.permutation(len(in_order)).tolist():
            again = source.read(i)
            assert (again.image, again.entry) == (in_order[i].image, in_order[i].entry)


@pytest.mark.parametrize(("side_m", "shows"), [(200.0, 50), (100.0, 100), (50.0, 200)])
def test_the_coarsest_overview_that_suffices_is_read(tmp_path, side_m, shows):
    """Full size is 200, the half 100, the quarter 50: a tile's brightness says where it was read from."""
    path = write(tmp_path / "map.tif", np.full((3, 256, 256), 50, np.uint8), tiled=True, blockxsize=64, blockysize=64)
    for brightness, factors in ((50, [2, 4]), (100, [2]), (200, [])):
        with rasterio.open(path, "r+") as file:
            file.write(np.full((3, 256, 256), brightness, np.uint8))
            if factors:
                file.build_overviews(factors, Resampling.nearest)
    with closing(open_tiles(path, Cut((side_m,), 0.0, max_px=50))) as source:
        image, _ = source.piece(0)
    assert image.mean() == pytest.approx(shows, abs=1)


def test_pixels_lie_in_the_same_place_whichever_overview_is_read(tmp_path):
    rows, columns = np.mgrid[0:256, 0:256]
    path = write(tmp_path / "map.tif", np.stack([columns, rows, rows]).astype(np.uint8))
    cut = Cut((128.0,), 0.0, max_px=32)
    with closing(open_tiles(path, cut)) as source:
        fine = [source.piece(i) for i in range(len(source))]
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    with closing(open_tiles(path, cut)) as source:
        coarse = [source.piece(i) for i in range(len(source))]
    for (a, where), (b, same) in zip(fine, coarse, strict=True):
        assert where == same
        assert np.abs(a.astype(float) - b)[2:-2, 2:-2].max() <= 2  # of 4 a pixel


def write_sparse(path, side_px, gsd_m):
    """A map without overviews, written in its north only, which takes little disk."""
    profile = {"count": 3, "dtype": "uint8", "crs": UTM51, "compress": "deflate", "zlevel": 1, "bigtiff": "yes"}
    transform = Affine(gsd_m, 0, 300_000, 0, -gsd_m, 2_800_000)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side_px,
        height=side_px,
        transform=transform,
        tiled=True,
        sparse_ok=True,
        **profile,
    ) as file:
        file.write(np.full((3, 512, side_px), 90, np.uint8), window=Window(0, 0, side_px, 512))
    return path


def read_in_a_process(path, sizes_m, max_px, body):
    """How many places there are, and the KiB by which memory grows when ``body`` reads some of them."""
    code = f"""
import json, resource, sys
from pathlib import Path
from service.maps.map_tiles import Cut
from service.maps.sources import open_upload
source = open_upload(Path(sys.argv[1]), Cut({sizes_m}, max_px={max_px}), "huge.tif")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{body}
print(json.dumps([len(source), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""
    environment = {"GDAL_CACHEMAX": "64"}
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def test_a_map_of_10_gigabytes_is_read_window_by_window(tmp_path):
    """The process that cuts it may not take 10 GB of memory either."""
    body = """
assert sum(source.read(i) is not None for i in range(0, 4000, 80)) > 10  # the map's north edge runs aslant
for i in range(8000, len(source), 20000):
    source.read(i)
"""
    path = write_sparse(tmp_path / "huge.tif", 60_000, 0.5)
    places, grown_kib = read_in_a_process(path, (86.0, 1000.0), 384, body)
    assert places > 480_000
    assert grown_kib < 400_000


def test_a_tile_of_600_megabytes_is_read_strip_by_strip(tmp_path):
    """Without overviews all of its 14,000 x 14,000 pixels have to be read, but not at once."""
    path = write_sparse(tmp_path / "large.tif", 14_000, 0.1)
    _, grown_kib = read_in_a_process(path, (1400.0,), 64, "assert source.read(0) is not None")
    assert grown_kib < 400_000


def test_strips_show_what_the_whole_shows(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    blurred = np.kron(rng.integers(0, 256, (3, 64, 64)), np.ones((1, 8, 8))).astype(np.uint8)
    blurred[:, :300, :200] = 0
    path = write(tmp_path / "map.tif", blurred, nodata=0)

    def pieces():
        with closing(open_tiles(path, Cut((256.0, 128.0), max_px=64))) as source:
            return [source.piece(i) for i in range(len(source))]

    whole = pieces()
    monkeypatch.setattr("service.maps.warped.MAX_STRIP_BYTES", 64 * 16 * 3 * 10)  # ten rows of the larger tiles
    for a, b in zip(whole, pieces(), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert a[1] == b[1]
            assert np.abs(a[0].astype(float) - b[0]).max() <= 2
    assert sum(piece is None for piece in whole) >= 2


def test_tiles_that_need_overviews_name_the_command_that_makes_them(tmp_path, plain, monkeypatch):
    path = write(tmp_path / "map.tif", plain)
    four_rows = 4 * 32 * (4 * 4 * 3)  # with 4 x 4 pixels of the map below each
    monkeypatch.setattr("service.maps.warped.MAX_STRIP_BYTES", four_rows)
    cut = Cut((256.0,), max_px=32)
    with pytest.raises(SourceUnreadable, match=r"gdaladdo -r average map\.tif, or give a smaller tile_size_m"):
        open_tiles(path, cut)
    open_tiles(path, Cut((128.0,), max_px=32)).close()
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.average)
    with closing(open_tiles(path, cut)) as source:
        assert source.piece(0)[0].mean() == pytest.approx(100, abs=1)


def test_a_large_map_without_overviews_is_sampled_for_its_stretch(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "map.tif", rng.integers(1000, 3000, (1, 1024, 1024)).astype(np.uint16))
    with closing(open_tiles(path, Cut((512.0,), 0.0))) as source:
        whole = source._map._stretch
    monkeypatch.setattr("service.maps.raster.MAX_DECIMATED_PX", 1000)
    with closing(open_tiles(path, Cut((512.0,), 0.0))) as source:
        assert source._map._stretch == pytest.approx(whole, abs=20)
    assert whole == pytest.approx((1040, 2960), abs=20)


def test_a_map_in_huge_blocks_names_the_command_that_cuts_them(tmp_path, plain, monkeypatch):
    path = write(tmp_path / "map.tif", plain, tiled=True, blockxsize=256, blockysize=256)
    monkeypatch.setattr("service.maps.raster.MAX_BLOCK_BYTES", 60_000)
    with pytest.raises(SourceUnreadable, match=r"gdal_translate -co TILED=YES map\.tif"):
        open_tiles(path, Cut())
    write(tmp_path / "tiled.tif", plain, tiled=True, blockxsize=64, blockysize=64)
    open_tiles(tmp_path / "tiled.tif", Cut()).close()


def test_a_map_with_room_for_too_many_tiles_is_refused(tmp_path, plain, monkeypatch):
    path = write(tmp_path / "map.tif", plain)
    open_tiles(path, Cut((16.0,), 0.9)).close()
    monkeypatch.setattr("service.maps.tiling.MAX_TILES", 10_000)
    with pytest.raises(InvalidParameter, match="larger tile_size_m"):
        open_tiles(path, Cut((16.0,), 0.9))


def test_uploads_are_told_apart_by_what_is_in_them(tmp_path, plain):
    path = write(tmp_path / "no-suffix", plain)
    with closing(open_upload(path, Cut(), "area.tif")) as source:
        assert source.label(0) == "area/86m-50/r00c00"
    for name, data in (("map.tif", b"<VRTDataset>"), ("map.png", b"\x89PNG\r\n"), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnsupportedMediaType, match="neither a GeoTIFF nor a zip"):
            open_upload(tmp_path / name, Cut(), name)


def test_an_upload_is_read_as_a_geotiff_or_not_at_all(tmp_path):
    """Other formats of GDAL name further files, here or on the network."""
    path = tmp_path / "map"
    path.write_bytes(b"II*\0<VRTDataset/>")
    with pytest.raises(SourceUnreadable):
        open_upload(path, Cut(), "map.tif")


def test_folders_and_tables_are_opened_by_what_they_are(tmp_path, monkeypatch):
    (tmp_path / "pyramid" / "9" / "1").mkdir(parents=True)
    (tmp_path / "pyramid" / "9" / "1" / "2.png").write_bytes(b"image")
    with closing(open_tiles(tmp_path / "pyramid", Cut())) as source:
        assert source.read(0).entry["id"] == "pyramid/9/1/2"
    monkeypatch.chdir(tmp_path / "pyramid")
    with closing(open_tiles(Path("."), Cut())) as source:
        assert source.read(0).entry["id"] == "pyramid/9/1/2"
    (tmp_path / "tiles.csv").write_text("file,west,south,east,north\n2.png,1,1,2,2\n")
    with closing(open_tiles(tmp_path / "tiles.csv", Cut(prefix="p"))) as source:
        assert source.read(0).image == b"image"
    with pytest.raises(SourceUnreadable, match=r"gone\.csv cannot be read"):
        open_tiles(tmp_path / "gone.csv", Cut())
    with pytest.raises(SourceUnreadable, match=r"gone\.tif cannot be read"):
        open_tiles(tmp_path / "gone.tif", Cut())


@pytest.mark.parametrize(
    "options",
    [{"tile_sizes_m": ()}, {"tile_sizes_m": range(1, 20)}, {"tile_sizes_m": (float("nan"),)}, {"prefix": "\n"}],
)
def test_a_cut_checks_its_values(options):
    with pytest.raises(InvalidParameter):
        Cut(**options)
