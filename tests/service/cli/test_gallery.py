"""``aerofix gallery`` beyond adding a map: sources, listing, deleting, copies, other models."""

import json
import sqlite3

import httpx
import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from aerofix import transport
from service import errors
from service.cli.main import app
from service.http.problems import problem_of

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def run(tmp_path, tiny_model):
    """``run(*arguments)`` invokes ``aerofix gallery``; ``run.local`` are the options that need no service."""
    model = tiny_model(tmp_path / "m.onnx")

    def invoke(*arguments):
        return CliRunner().invoke(app, ["gallery", *map(str, arguments)])

    invoke.local = ["--gallery", tmp_path / "g.gallery", "--model", model, "--device", "cpu"]
    return invoke


@pytest.fixture
def town(tmp_path, ground, write_map):
    return write_map(tmp_path / "town.tif", ground(4, 48, 64))


@pytest.fixture
def filled(run, town):
    """Two columns and three rows of windows inside the map, and those round them that show half of it."""
    result = run("add", town, "--tile-size-m", 70, *run.local)
    assert "added 16, updated 0, failed 0, skipped 4\nthe gallery holds 16 windows" in result.stdout, result.output
    return run


ROW, COLUMN = 448_000, 875_000
IDS = [
    f"town/16/{ROW + row}/{COLUMN + column}"
    for row in range(-1, 4)
    for column in range(-1, 3)
    if row in range(3) or column in range(2)
]


def ids(run, *options):
    return [json.loads(line)["id"] for line in run("list", "--json", *options, *run.local).stdout.splitlines()]


def test_a_folder_and_a_table_are_added(run, tmp_path, ground):
    folder = tmp_path / "osm" / "17" / "109000"
    folder.mkdir(parents=True)
    for y in range(4):
        ground(y, 64, 64).save(folder / f"{56_000 + y}.png")
    assert "osm.zip: map osm, done: added" in run("add", tmp_path / "osm", *run.local).stdout
    rows = ["Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long"]
    rows += ["56000.png,24.26,120.71,24.259,120.711"]
    (folder / "tiles.csv").write_text("\n".join(rows))
    assert "tiles.zip: map tiles, done: added" in run("add", folder / "tiles.csv", *run.local).stdout


def test_an_image_with_its_corners(run, tmp_path, ground):
    ground(1, 64, 64).save(tmp_path / "field.png")
    (tmp_path / "where.json").write_text('{"bounds": [120.71, 24.26, 120.712, 24.262]}')
    result = run("add", tmp_path / "field.png", "--corners", tmp_path / "where.json", *run.local)
    assert "map field, done: added" in result.stdout, result.output


def test_what_is_no_map_is_one_line(run, tmp_path):
    (tmp_path / "town.tif").write_text("no map")
    for name in ("town.tif", "lost.tif"):
        result = run("add", tmp_path / name, *run.local)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1, result.stderr


def test_warnings_are_told(run, tmp_path, ground, write_map):
    image = ground(4, 192, 96)
    image.paste((200, 30, 0), (40, 10, 150, 86))
    result = run("add", write_map(tmp_path / "half.tif", image), "--tile-size-m", 70, *run.local)
    assert result.exit_code == 0
    assert "windows were left out" in result.stderr, result.output
    assert "of a single colour" in result.stderr


def test_tiles_are_listed(filled):
    assert ids(filled) == IDS
    assert len(ids(filled, "--limit", 4)) == 4
    table = filled("list", "--limit", 2, *filled.local).stdout
    assert IDS[1] in table
    assert IDS[2] not in table


def test_a_long_list_is_read_page_by_page(filled, monkeypatch):
    monkeypatch.setattr("service.cli.gallery.TILES_PER_PAGE", 4)
    assert len(ids(filled)) == 16
    assert len(ids(filled, "--limit", 5)) == 5


def test_tiles_are_deleted_by_id_and_by_area(filled):
    result = filled("delete", IDS[3], IDS[4], *filled.local)
    assert "deleted 2; the gallery holds 14 tiles" in result.stdout
    unknown = filled("delete", "nope", *filled.local)
    assert unknown.exit_code == 1
    assert "there is no tile 'nope'" in unknown.stderr
    tile = json.loads(filled("list", "--json", "--limit", 1, *filled.local).stdout)
    around = f"{tile['lon'] - 1e-5},{tile['lat'] - 1e-5},{tile['lon'] + 1e-5},{tile['lat'] + 1e-5}"
    assert ids(filled, "--bbox", around) == IDS[:1]
    assert "deleted 1" in filled("delete", "--bbox", around, *filled.local).stdout
    for arguments in ([], ["x", "--bbox", around]):
        assert filled("delete", *arguments, *filled.local).exit_code == 2


def test_a_snapshot_is_restored(filled, tmp_path):
    copy = tmp_path / "copy.gallery"
    assert filled("snapshot", copy, *filled.local).exit_code == 0
    again = filled("snapshot", copy, *filled.local)
    assert again.exit_code == 1
    assert "exists; name another file" in again.stderr
    filled("delete", "--bbox", "-180,-90,180,90", *filled.local)
    assert ids(filled) == []
    result = filled("restore", copy, *filled.local[:2])
    assert result.exit_code == 0
    assert "holds 16 tiles" in result.stdout
    assert "g.gallery.replaced" in result.stdout
    assert len(ids(filled)) == 16
    assert list((tmp_path / "g.gallery-snapshots").iterdir()) == []  # what was downloaded does not pile up


def test_a_damaged_snapshot_is_one_line(filled, tmp_path):
    (tmp_path / "bad").write_text("no gallery")
    result = filled("restore", tmp_path / "bad", *filled.local[:2])
    assert result.exit_code == 1
    assert "bad is damaged" in result.stderr
    assert ".part" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(ids(filled)) == 16


def test_another_model_is_refused_until_the_gallery_is_embedded_again(filled, tmp_path, tiny_model):
    other = tiny_model(tmp_path / "other.onnx", seed=1)
    local = ["--gallery", tmp_path / "g.gallery", "--model", other, "--device", "cpu"]
    refused = filled("info", *local)
    assert refused.exit_code == 1
    assert "aerofix gallery reembed --gallery g.gallery" in refused.stderr
    result = filled("reembed", *local)
    assert result.exit_code == 0, result.output
    assert "embedded 16 windows and 0 single pictures with tiny-1" in result.stdout
    assert filled("info", *local).exit_code == 0
    assert filled("info", *filled.local).exit_code == 1


def test_reembed_needs_a_gallery(run):
    result = run("reembed", *run.local)
    assert result.exit_code == 1
    assert "there is no gallery" in result.stderr


def test_a_gallery_that_is_no_gallery_is_one_line(run, tmp_path):
    with sqlite3.connect(tmp_path / "g.gallery") as db:
        db.execute("CREATE TABLE other (x)")
    db.close()
    for command in (["info"], ["reembed"]):
        result = run(*command, *run.local)
        assert result.exit_code == 1
        assert "not an aerofix gallery" in result.stderr


def test_a_map_with_its_elevation(run, town, tmp_path):
    profile = {"driver": "GTiff", "count": 1, "width": 50, "height": 50, "dtype": "float32", "crs": "EPSG:4326"}
    with rasterio.open(
        tmp_path / "dem.tif", "w", **profile, transform=rasterio.Affine(0.1, 0, 119, 0, -0.1, 26)
    ) as out:
        out.write(np.full((1, 50, 50), 40, "float32"))
    said = "dem.tif: the ground of map town is 40 to 40 m high"
    result = run("add", town, "--elevation", tmp_path / "dem.tif", *run.local)
    assert result.exit_code == 0, result.output
    assert said in result.stdout
    assert (
        said in run("add", "--map", "town", "--elevation", tmp_path / "dem.tif", *run.local).stdout
    )  # one that is there
    lost = run("add", "--map", "village", "--elevation", tmp_path / "dem.tif", *run.local)
    assert (lost.exit_code, "there is no map 'village'" in lost.output) == (1, True)
    assert run("add", "--elevation", tmp_path / "dem.tif", *run.local).exit_code == 2
    assert "cannot be read" in run("add", "--map", "town", "--elevation", tmp_path / "no.tif", *run.local).output


def test_a_source_that_is_refused_does_not_stop_the_others(run, town, tmp_path, ground, write_map):
    (tmp_path / "broken.tif").write_text("no map")
    other = write_map(tmp_path / "port.tif", ground(5, 48, 64))
    result = run("add", tmp_path / "broken.tif", town, tmp_path / "lost.tif", other, *run.local)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [
        line for line in result.stderr.splitlines() if "broken.tif" in line or "lost.tif" in line
    ]
    assert "map town, done" in result.stdout
    assert "map port, done" in result.stdout


def test_without_a_service_no_source_is_tried_in_vain(run, town):
    result = run("add", town, town, "--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.count("no service answers") == 1


@pytest.mark.parametrize(
    "error",
    [
        *(errors.Unauthorized, errors.Forbidden, errors.Overloaded, errors.NotReady),
        *(errors.GalleryReadOnly, errors.GalleryUnusable, errors.IndexUnavailable, errors.StorageFull),
    ],
)
def test_no_further_source_is_sent_to_a_service_that_takes_none(run, town, write_map, ground, monkeypatch, error):
    asked = []

    def answer(request):
        asked.append(request.method)
        problem = problem_of(error("it takes no map"))
        return httpx.Response(problem.status, text=problem.model_dump_json())

    def client(real=httpx.AsyncClient, **options):
        return real(**options | {"transport": httpx.MockTransport(answer)})

    monkeypatch.setattr(httpx, "AsyncClient", client)
    monkeypatch.setattr(transport, "PATIENCE_S", 0.0)
    result = run("add", town, write_map(town.with_name("port.tif"), ground(5, 48, 64)), "--url", "http://a.service")
    assert (result.exit_code, result.stderr.count("it takes no map"), asked) == (1, 1, ["POST"])


def test_the_date_of_a_map(run, town):
    assert run("add", town, "--date", "2024-05", *run.local).exit_code == 0
    bad = run("add", town, "--map", "again", "--date", "May 2024", *run.local)
    assert (bad.exit_code, "give a day (2024-05-17)" in bad.stderr) == (1, True)
