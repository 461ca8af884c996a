"""A map in shards: the same whoever makes them, refused when they are not whole, and found like any other map."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dying import die

pytest.importorskip("pyarrow")

from service.bulk import engines
from service.bulk.engines import embed_all
from service.bulk.job import Job
from service.bulk.load import load, whole_job
from service.bulk.shard import embed_shard
from service.bulk.table import Marker
from service.encoder.contract import check_contract
from service.errors import EmbeddingError, GalleryUnusable, InvalidParameter, MapExists, ModelMismatch, SourceUnreadable
from service.ground.gallery import Gallery
from service.ground.windows import rectangle_of
from service.importing.options import MapOptions
from service.importing.plan import tiles_in
from service.settings import Settings

spec = importlib.util.spec_from_file_location("pool", Path(__file__).parents[3] / "benchmarks" / "pool.py")
pool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pool)

WIDTH, HEIGHT = 640, 384


@pytest.fixture
def model(tmp_path, tiny_model):
    return tiny_model(tmp_path / "m.onnx", local=True)


@pytest.fixture
def source(tmp_path, ground, write_map):
    return write_map(tmp_path / "area.tif", ground(4, WIDTH, HEIGHT))


@pytest.fixture
def job(tmp_path, model, source):
    def make(shards, out="shards", **options):
        settings = Settings(model=model, device="cpu", threads=1)
        return Job(source, tmp_path / out, shards, MapOptions(**options), settings)

    return make


@pytest.fixture
def put(tmp_path, model):
    """``put(folder, …)``: what a gallery holds when the shards are loaded into it."""

    def make(folder, name=None, replace=False, gallery="g.gallery", of=None):
        contract = check_contract(of or model)
        whole = whole_job(folder, contract, name)
        opened = Gallery.open(
            tmp_path / gallery,
            contract.identity,
            contract.embedding_dim,
            "cpu",
            contract.image_size,
            contract.local_shape,
        )
        with opened:
            known = load(whole, opened, replace, lambda done, total: None)
            ids, vectors = zip(*opened._store.maps.windows(known.number), strict=True)
            order = np.argsort(np.concatenate(ids))
            keys = np.concatenate(ids)[order].tolist()
            zooms = range(known.min_zoom, known.max_zoom + 1)
            tiles = {(z, x, y): opened.maps.tile(known, z, x, y) for z in zooms for x, y in _tiles(known.bounds, z)}
            return known, keys, np.concatenate(vectors)[order], tiles, opened._store.maps.blocks(keys)

    return make


def _tiles(bounds, zoom):
    area = tiles_in(rectangle_of(bounds, zoom))
    return [(x, y) for x in range(area.left, area.right) for y in range(area.top, area.bottom)]


def same(one, other):
    (_, keys, vectors, tiles, blocks), (_, keys2, vectors2, tiles2, blocks2) = one, other
    assert keys == keys2
    assert tiles == tiles2
    assert any(tiles.values())
    assert blocks.keys() == blocks2.keys() != set()
    assert all((blocks[key] == blocks2[key]).all() for key in blocks)
    np.testing.assert_array_equal(vectors, vectors2)


def test_any_number_of_shards_gives_the_same_map(job, put):
    for shards in (1, 7):
        for shard in reversed(range(shards)):  # in any order
            embed_shard(job(shards, f"of{shards}"), shard)
    same(put(job(1, "of1").out, gallery="one"), put(job(7, "of7").out, gallery="seven"))


def test_a_map_in_shards_is_that_of_an_import(job, put, tmp_path, model, source):
    embed_shard(job(1), 0)
    known, keys, vectors, tiles, blocks = put(job(1).out)
    command = [sys.executable, "-m", "service.cli.main", "gallery", "add", source, "--gallery", tmp_path / "i.gallery"]
    subprocess.run([*command, "--model", model, "--device", "cpu"], check=True, capture_output=True)
    contract = check_contract(model)
    with Gallery.open(tmp_path / "i.gallery", contract.identity, contract.embedding_dim, window_px=32) as imported:
        other = imported.maps.get("area")
        assert {**vars(known), "created_at": ""} == {**vars(other), "created_at": ""}
        ids, rows = map(np.concatenate, zip(*imported._store.maps.windows(other.number), strict=True))
        order = np.argsort(ids)
        assert ids[order].tolist() == keys
        np.testing.assert_allclose(rows[order].astype(float), vectors.astype(float), atol=2e-3)  # batches differ
        assert all(imported.maps.tile(other, *place) == tile for place, tile in tiles.items())
        assert imported._store.maps.blocks(keys).keys() == blocks.keys()


def test_a_shard_that_is_whole_is_not_made_again(job):
    first = embed_shard(job(3), 1)
    before = job(3).path(1).stat().st_mtime_ns
    assert embed_shard(job(3), 1) == first
    assert job(3).path(1).stat().st_mtime_ns == before


def test_a_shard_of_another_job_is_not_written_over(job):
    embed_shard(job(3), 1)
    before = job(3).path(1).read_bytes()
    with pytest.raises(InvalidParameter, match="another source, model or options; name another --out"):
        embed_shard(job(3, overlap=0.0), 1)
    assert job(3).path(1).read_bytes() == before


def test_a_source_that_changes_meanwhile_is_another(job, put, source, ground, write_map):
    embed_shard(job(3), 0)
    before = source.read_bytes()
    changed = ground(4, WIDTH, HEIGHT)
    changed.paste("black", (300, 200, 310, 210))
    write_map(source, changed)
    assert source.stat().st_size == len(before)
    for shard in (1, 2):
        embed_shard(job(3), shard)
    with pytest.raises(SourceUnreadable, match="different jobs"):
        put(job(3).out)


def test_what_is_missing_foreign_or_damaged_is_refused(job, put, tmp_path):
    embed_shard(job(3), 0)
    with pytest.raises(SourceUnreadable, match=r"2 of 3 shards are missing.*1, 2"):
        put(job(3).out)
    embed_shard(job(3), 1)
    embed_shard(job(3, overlap=0.0), 2)
    with pytest.raises(SourceUnreadable, match="different jobs"):
        put(job(3).out)
    job(3).path(2).with_suffix(".json").unlink()
    embed_shard(job(3), 2)
    path = job(3).path(1)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(SourceUnreadable, match="delete it"):
        put(job(3).out)
    command = [sys.executable, "-m", "service.cli.main", "gallery", "load", str(job(3).out)]
    command += ["--gallery", str(tmp_path / "none.gallery"), "--model", str(job(3).settings.model)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "none.gallery").exists()
    with pytest.raises(SourceUnreadable, match="holds no whole shard"):
        put(tmp_path)


def test_a_load_that_fails_leaves_nothing(job, tmp_path):
    embed_shard(job(1), 0)
    contract = check_contract(job(1).settings.model)
    whole = whole_job(job(1).out, contract, None)

    def fail(done, total):
        raise OSError("a disk that is full")

    with Gallery.open(tmp_path / "g.gallery", contract.identity, contract.embedding_dim, window_px=32) as left:
        with pytest.raises(OSError, match="full"):
            load(whole, left, False, fail)
        assert left.maps.all() == []


def test_a_name_that_is_taken_and_another_model_are_refused(job, put, tiny_model, tmp_path):
    embed_shard(job(1), 0)
    put(job(1).out)
    with pytest.raises(MapExists):
        put(job(1).out)
    known, *_ = put(job(1).out, replace=True)
    assert known.name == "area"
    assert put(job(1).out, name="second")[0].name == "second"
    with pytest.raises(InvalidParameter, match="without slashes"):
        put(job(1).out, name="a/b")
    other = tiny_model(tmp_path / "other.onnx", local=True, seed=5)
    with pytest.raises(ModelMismatch):
        put(job(1).out, gallery="other", of=other)


def test_shards_that_do_not_exist_are_refused(job):
    with pytest.raises(InvalidParameter, match="0 to 2"):
        embed_shard(job(3), 3)
    with pytest.raises(InvalidParameter):
        job(0)


def test_a_worker_that_is_killed_is_replaced(job, put, tmp_path, model, source):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "service.cli.main", "embed", str(source), "--out", str(out), "--of", "6"]
    run = subprocess.Popen([*command, "--workers", "2", "--model", str(model), "--device", "cpu"])
    while not (workers := pool.workers_of(run.pid)):
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    assert run.wait() == 0
    for shard in range(6):
        embed_shard(job(6, "alone"), shard)
    same(put(out, gallery="killed.gallery"), put(job(6, "alone").out, gallery="alone.gallery"))


def test_a_shard_that_cannot_be_made_stops_the_others(job):
    embed_shard(job(200, overlap=0.0), 0)
    whole = []
    with pytest.raises(InvalidParameter, match="another source"):
        embed_all(job(200), 1, "local", whole.append)
    assert len(list(job(200).out.glob("*.json"))) < 100
    assert not list(job(200).out.glob("*.tmp"))


def test_ctrl_c_stops_the_work_and_leaves_nothing_half_done(tmp_path, model, source):
    out = tmp_path / "stopped"
    command = [sys.executable, "-m", "service.cli.main", "embed", str(source), "--out", str(out), "--of", "2000"]
    with subprocess.Popen(
        [*command, "--workers", "1", "--model", str(model), "--device", "cpu"],
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while not list(out.glob("*.json")):
            assert run.poll() is None
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGINT)  # a terminal tells all of them
        try:
            _, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, "Traceback" in err) == (130, False), err
    assert 1 <= len(list(out.glob("*.json"))) < 1000
    assert not [*out.glob("*.tmp"), *out.glob("*.said")]


def test_a_file_in_the_place_of_the_folder_is_told_as_that(job, tmp_path):
    (tmp_path / "shards").touch()
    with pytest.raises(GalleryUnusable, match="shards cannot be written"):
        embed_shard(job(1), 0)


def test_work_that_kills_whoever_does_it_ends(job, monkeypatch):
    monkeypatch.setattr("service.bulk.engines._shard_here", die)
    with pytest.raises(EmbeddingError, match="processes died 3 times"):
        embed_all(job(2), 1, "local", lambda marker: None)


def test_a_marker_that_cannot_be_read_names_the_fix(job):
    embed_shard(job(1), 0)
    marker = job(1).path(0).with_suffix(".json")
    told = json.loads(marker.read_text())
    marker.write_text(json.dumps(told | {"unknown": 1}))
    with pytest.raises(SourceUnreadable, match="embed the shard again"):
        Marker.of(job(1).path(0))


def test_a_pool_that_breaks_while_it_starts_a_process_is_replaced(job, monkeypatch):
    class Breaks(engines.ProcessPoolExecutor):
        pools = 0

        def __init__(self, *args):
            super().__init__(*args)
            Breaks.pools += 1

        def submit(self, *args):
            if Breaks.pools == 1:
                raise OSError("handle is closed")
            return super().submit(*args)

    monkeypatch.setattr(engines, "ProcessPoolExecutor", Breaks)
    made = []
    engines.embed_all(job(2), 1, "local", made.append)
    assert (len(made), Breaks.pools) == (2, 2)
    assert all(job(2).path(shard).exists() for shard in range(2))
