"""``aerofix gallery`` beyond adding a map: sources, listing, deleting, copies, other models."""

import json
import sqlite3
import zipfile

import pytest
from typer.testing import CliRunner

from service.cli.main import app


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("AEROFIX_URL", "AEROFIX_GALLERY", "AEROFIX_MODEL", "AEROFIX_DEVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path, tiny_model):
    """``run(*arguments)`` invokes ``aerofix gallery``; ``run.local`` are the options that need no service."""
    model = tiny_model(tmp_path / "m.onnx")

    def invoke(*arguments):
        return CliRunner().invoke(app, ["gallery", *map(str, arguments)])

    invoke.local = ["--gallery", tmp_path / "g.gallery", "--model", model, "--device", "cpu"]
    return invoke


@pytest.fixture
def pyramid(tmp_path, ground):
    folder = tmp_path / "osm" / "17" / "109000"
    folder.mkdir(parents=True)
    for y in range(20):
        ground(y, 32, 32).save(folder / f"{56_000 + y}.png")
    return tmp_path / "osm"


@pytest.fixture
def filled(run, pyramid):
    result = run("add", pyramid, *run.local)
    assert "added 20, updated 0, failed 0; the gallery holds 20 tiles" in result.stdout, result.output
    return run


def ids(run, *options):
    return [json.loads(line)["id"] for line in run("list", "--json", *options, *run.local).stdout.splitlines()]


def test_a_zip_and_a_table_are_added(run, pyramid, tmp_path):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as out:
        for path in pyramid.rglob("*.png"):
            out.write(path, path.relative_to(pyramid))
    assert "added 20" in run("add", tmp_path / "z.zip", "--prefix", "osm", *run.local).stdout
    rows = ["Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long"]
    rows += ["56000.png,24.26,120.71,24.259,120.711", "lost.png,1,1,0.9,1.1"]
    (tmp_path / "tiles.csv").write_text("\n".join(rows))
    result = run("add", tmp_path / "tiles.csv", *run.local)
    assert result.exit_code == 1
    assert "added 1, updated 0, failed 1" in result.stdout
    assert "tiles.csv line 3 (lost.png): there is no image" in result.stderr


def test_empty_places_are_counted(run, tmp_path, pyramid, ground):
    clear = ground(1, 32, 32)
    clear.putalpha(0)
    clear.save(pyramid / "17" / "109000" / "56000.png")
    assert "added 19, updated 0, failed 0, skipped 1 (mostly empty)" in run("add", pyramid, *run.local).stdout


def test_tiles_are_listed(filled):
    assert ids(filled) == [f"osm/17/109000/{y}" for y in range(56_000, 56_020)]
    assert len(ids(filled, "--limit", 7)) == 7
    table = filled("list", "--limit", 2, *filled.local).stdout
    assert "osm/17/109000/56001" in table
    assert "osm/17/109000/56002" not in table


def test_a_long_list_is_read_page_by_page(filled, monkeypatch):
    monkeypatch.setattr("service.cli.gallery.TILES_PER_PAGE", 3)
    assert len(ids(filled)) == 20
    assert len(ids(filled, "--limit", 7)) == 7


def test_tiles_are_deleted_by_id_and_by_area(filled):
    result = filled("delete", "osm/17/109000/56003", "osm/17/109000/56004", *filled.local)
    assert "deleted 2; the gallery holds 18 tiles" in result.stdout
    unknown = filled("delete", "nope", *filled.local)
    assert unknown.exit_code == 1
    assert "there is no tile 'nope'" in unknown.stderr
    tile = json.loads(filled("list", "--json", "--limit", 1, *filled.local).stdout)
    around = f"{tile['lon'] - 1e-5},{tile['lat'] - 1e-5},{tile['lon'] + 1e-5},{tile['lat'] + 1e-5}"
    assert ids(filled, "--bbox", around) == ["osm/17/109000/56000"]
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
    assert "holds 20 tiles" in result.stdout
    assert "g.gallery.replaced" in result.stdout
    assert len(ids(filled)) == 20
    assert list((tmp_path / "g.gallery-snapshots").iterdir()) == []  # what was downloaded does not pile up


def test_a_damaged_snapshot_is_one_line(filled, tmp_path):
    (tmp_path / "bad").write_text("no gallery")
    result = filled("restore", tmp_path / "bad", *filled.local[:2])
    assert result.exit_code == 1
    assert "bad is damaged" in result.stderr
    assert ".part" not in result.stderr
    assert result.stderr.count("\n") == 1
    assert len(ids(filled)) == 20


def test_another_model_is_refused_until_the_gallery_is_embedded_again(filled, tmp_path, tiny_model):
    other = tiny_model(tmp_path / "other.onnx", seed=1)
    local = ["--gallery", tmp_path / "g.gallery", "--model", other, "--device", "cpu"]
    refused = filled("info", *local)
    assert refused.exit_code == 1
    assert "aerofix gallery reembed --gallery g.gallery" in refused.stderr
    result = filled("reembed", *local)
    assert result.exit_code == 0, result.output
    assert "embedded 20 tiles with tiny-1" in result.stdout
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
