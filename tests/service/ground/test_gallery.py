import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import DeviceUnavailable, GalleryEmpty, GalleryUnusable, ModelMismatch, StorageFull
from service.geo import Circle
from service.ground.gallery import Gallery
from service.ground.records import NewTile
from service.ground.tile import Footprint, Tile

DIM = 16


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gallery.db"


@pytest.fixture
def gallery(path):
    with Gallery.open(path, "model-1", DIM) as gallery:
        yield gallery


def found(hits):
    return [hit.tile.id for hit in hits]


def test_a_tile_is_found_by_its_own_embedding(gallery, new_tile):
    tiles = [new_tile(f"t{n}", seed=n, number=n) for n in range(20)]
    assert gallery.upsert(tiles) == ["added"] * 20
    results = gallery.search(np.stack([new.embedding for new in tiles]), 3)
    assert [hits[0].tile for hits in results] == [new.tile for new in tiles]
    assert all(hits[0].score == pytest.approx(1, abs=1e-3) for hits in results)
    assert all(hits == sorted(hits, key=lambda hit: -hit.score) for hits in results)


def test_scores_are_those_of_the_rounded_embeddings_in_float64(gallery, new_tile):
    tiles = [new_tile(f"t{n}", seed=n) for n in range(20)]
    gallery.upsert(tiles)
    rounded = np.stack([new.embedding for new in tiles]).astype(np.float16).astype(float)
    rounded /= np.linalg.norm(rounded, axis=1, keepdims=True)
    query = new_tile("query", seed=99).embedding
    (hits,) = gallery.search(query[None], 20)
    expected = dict(zip((new.tile.id for new in tiles), rounded @ query, strict=True))
    assert {hit.tile.id: hit.score for hit in hits} == pytest.approx(expected, abs=1e-6)


def test_answers_are_the_same_after_a_restart(gallery, path, new_tile):
    gallery.upsert([new_tile(f"t{n}", seed=n, lat=24 + n / 1000) for n in range(50)])
    gallery.upsert([new_tile("t7", seed=70)])
    gallery.delete(["t8"])
    queries = np.stack([new_tile("query", seed=n).embedding for n in range(100, 110)])
    area = Circle(24.01, 120.71, 1500)
    before = [gallery.search(queries, 10), gallery.search(queries, 10, area), gallery.info()]
    gallery.close()
    with Gallery.open(path, "model-1", DIM) as again:
        assert [again.search(queries, 10), again.search(queries, 10, area), again.info()] == before


def test_upsert_of_a_known_id_updates_it(gallery, new_tile):
    gallery.upsert([new_tile("a", seed=1), new_tile("b", seed=2)])
    assert gallery.upsert([new_tile("b", seed=3, lat=-10), new_tile("c", seed=4)]) == ["updated", "added"]
    assert gallery.count() == 3
    (hits,) = gallery.search(new_tile("b", seed=3).embedding[None], 1)
    assert (hits[0].tile.id, hits[0].tile.footprint.centre[0]) == ("b", pytest.approx(-10))
    assert gallery.image("b") == b"jpeg of b 3"


def test_of_one_id_twice_in_a_call_the_last_stays(gallery, new_tile):
    assert gallery.upsert([new_tile("a", seed=1), new_tile("a", seed=2)]) == ["added", "updated"]
    assert gallery.count() == 1
    (hits,) = gallery.search(new_tile("a", seed=2).embedding[None], 5)
    assert [hit.score for hit in hits] == pytest.approx([1], abs=1e-3)


def test_area_limits_search_and_count(gallery, new_tile):
    gallery.upsert([new_tile("east", lon=179.9995, lat=0, seed=1), new_tile("west", lon=-179.9995, lat=0, seed=2)])
    gallery.upsert([new_tile("far", lon=0, lat=0, seed=3)])
    query = new_tile("far", seed=3).embedding[None]
    area = Circle(0, 180, 100)
    assert sorted(found(gallery.search(query, 10, area)[0])) == ["east", "west"]
    assert gallery.count(area) == 2
    assert gallery.search(query, 10, Circle(50, 50, 100)) == [[]]


def test_deleted_tiles_are_gone(gallery, new_tile):
    gallery.upsert([new_tile("a", seed=1), new_tile("b", seed=2)])
    assert gallery.delete(["a", "unknown", "a"]) == 1
    assert found(gallery.search(new_tile("a", seed=1).embedding[None], 5)[0]) == ["b"]
    assert (gallery.tile("a"), gallery.image("a")) == (None, None)
    assert gallery.tile("b").id == "b"


def test_an_empty_gallery_says_what_to_do(gallery, new_tile):
    with pytest.raises(GalleryEmpty, match="aerofix gallery add"):
        gallery.search(new_tile("a").embedding[None], 5)
    assert gallery.upsert([]) == []
    assert gallery.info().generation == 0
    assert (gallery.info().bounds, gallery.info().tile_side_m) == (None, None)


def test_info(gallery, new_tile):
    gallery.upsert([new_tile("a", lat=10, lon=179.9), new_tile("b", lat=11, lon=-179.9)])
    info = gallery.info()
    assert (info.count, info.generation, info.identity, info.index["size"]) == (2, 1, "model-1", 2)
    west, south, east, north = info.bounds
    assert (west, south) == pytest.approx((179.9, 10), abs=0.001)
    assert (east, north) == pytest.approx((-179.9, 11), abs=0.001)
    assert info.tile_side_m == pytest.approx(86, rel=1e-4)
    gallery.delete(["b"])
    assert gallery.info().bounds[2] == pytest.approx(179.9, abs=0.001)
    assert gallery.info().generation == 2


def test_pages_list_an_area_once_each(gallery, new_tile):
    gallery.upsert([new_tile(f"t{n}", lat=n / 100, lon=0) for n in range(10)])
    bounds, cursor, pages = (-1, 0.015, 1, 0.085), 0, []
    while cursor is not None:
        page = gallery.page(bounds, 3, cursor)
        pages.append([tile.id for tile in page.tiles])
        cursor = page.cursor
    assert pages == [["t2", "t3", "t4"], ["t5", "t6", "t7"], ["t8"]]


def test_another_model_is_refused_and_the_file_is_free_again(gallery, path, new_tile):
    gallery.upsert([new_tile("a")])
    gallery.close()
    with pytest.raises(ModelMismatch, match="reembed"):
        Gallery.open(path, "model-2", DIM)
    with pytest.raises(GalleryUnusable, match="an embedding does not have 8 dimensions"):
        Gallery.open(path, "model-1", 8)
    with Gallery.open(path, "model-1", DIM) as again:
        assert again.count() == 1


def test_search_on_a_gpu_that_is_not_there_is_refused(path):
    with pytest.raises(DeviceUnavailable, match="AEROFIX_INDEX_DEVICE=cpu"):
        Gallery.open(path, "model-1", DIM, device="cuda")


def test_without_faiss_the_fix_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(DeviceUnavailable, match=r"pip install 'aerofix\[cpu\]'"):
        Gallery.open(path, "model-1", DIM)


def test_a_full_disk_changes_nothing(gallery, new_tile):
    gallery.upsert([new_tile("a", seed=1)])
    before = gallery.info()
    pages = gallery._store.file.db.execute("PRAGMA page_count").fetchone()[0]
    gallery._store.file.db.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(StorageFull):
        gallery.upsert([new_tile(f"t{n}", seed=n) for n in range(500)])
    assert gallery.info() == before
    assert found(gallery.search(new_tile("a", seed=1).embedding[None], 5)[0]) == ["a"]


@pytest.mark.parametrize("embedding", [np.zeros(DIM), np.full(DIM, np.nan), np.ones(DIM + 1)])
def test_embeddings_without_direction_are_refused(gallery, new_tile, embedding):
    good = new_tile("a")
    with pytest.raises(ValueError, match="an embedding"):
        gallery.upsert([good, type(good)(good.tile, embedding.astype(np.float32), b"")])
    assert gallery.count() == 0


@pytest.mark.parametrize(("shape", "k"), [((DIM,), 1), ((1, DIM + 1), 1), ((1, DIM), 0)])
def test_search_refuses_wrong_shapes(gallery, shape, k):
    with pytest.raises(ValueError, match="expected queries"):
        gallery.search(np.ones(shape, np.float32), k)


def test_tiles_are_findable_in_another_process_after_kill_9(path, new_tile):
    code = """
import os, signal, sys
import numpy as np
from service.ground.gallery import Gallery
from service.ground.records import NewTile
from service.ground.tile import Footprint, Tile
gallery = Gallery.open(sys.argv[1], "model-1", 16)
tile = Tile("a", Footprint.from_centre(1, 2, 1, 50, 50))
print(gallery.upsert([NewTile(tile, np.eye(16, dtype=np.float32)[3], b"j")]))
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", code, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (-9, "['added']\n")
    with Gallery.open(path, "model-1", DIM) as gallery:
        (hits,) = gallery.search(np.eye(DIM, dtype=np.float32)[3:4], 1)
        assert (hits[0].tile.id, hits[0].score) == ("a", 1.0)


def test_searches_and_writes_at_the_same_time(gallery, new_tile):
    """What a search finds is always a whole tile, whatever is written meanwhile."""
    gallery.upsert([new_tile("fixed", seed=1)])
    queries = np.stack([new_tile("query", seed=n).embedding for n in range(1, 4)])
    problems, done = [], threading.Event()

    def search():
        while not done.is_set():
            try:
                hits = gallery.search(queries, 100)[0]
                if hits[0].tile.id != "fixed" or len(set(found(hits))) != len(hits):
                    problems.append(hits)
            except Exception as error:
                problems.append(error)

    readers = [threading.Thread(target=search) for _ in range(3)]
    for reader in readers:
        reader.start()
    for round_ in range(15):
        gallery.upsert([new_tile(f"t{n}", seed=1000 + 20 * round_ + n) for n in range(20)])
        gallery.delete([f"t{n}" for n in range(0, 20, 3)])
        gallery.info()
    done.set()
    for reader in readers:
        reader.join()
    assert problems == []


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["upsert", "delete", "delete in"]), st.integers(0, 9)), max_size=25))
def test_a_search_finds_what_is_stored_after_every_history(steps):
    rng = np.random.default_rng(0)
    query = np.eye(DIM, dtype=np.float32)[:1]
    with Gallery.open(":memory:", "model-1", DIM) as gallery:
        for kind, n in steps:
            if kind == "upsert":
                vector = rng.normal(size=DIM).astype(np.float32)
                tile = Tile(f"t{n}", Footprint.from_centre(n / 10, 1, 1, 50, 50))
                gallery.upsert([NewTile(tile, vector / np.linalg.norm(vector), b"jpeg")])
            elif kind == "delete":
                gallery.delete([f"t{n}"])
            else:
                gallery.delete_in((0, n / 10 - 0.05, 2, n / 10 + 0.15))  # this one and the next
            listed = [tile.id for tile in gallery.page(None, 100).tiles]
            (hits,) = gallery.search(query, 100) if listed else [[]]
            assert sorted(found(hits)) == sorted(listed)
            assert gallery.count() == gallery.info().count == len(listed)


def test_a_write_that_the_disk_refuses_leaves_the_search_as_it_was(gallery, new_tile):
    gallery.upsert([new_tile("a", seed=1), new_tile("b", seed=2)])
    gallery._store.file.db.execute("PRAGMA query_only = ON")
    for write in (lambda: gallery.delete(["a"]), lambda: gallery.upsert([new_tile("c")])):
        with pytest.raises(GalleryUnusable, match="read-only"):
            write()
    assert sorted(found(gallery.search(new_tile("a", seed=1).embedding[None], 5)[0])) == ["a", "b"]
    assert gallery.info().generation == 1


def test_local_descriptors_come_back_in_the_order_asked_for(gallery, new_tile):
    maps = [np.full((4, 2, 3), n, np.int8) for n in range(3)]
    gallery.upsert([replace(new_tile(f"t{n}", seed=n), local=local) for n, local in enumerate(maps)])
    gallery.upsert([new_tile("without", seed=9), new_tile("gone", seed=8)])
    (hits,) = gallery.search(new_tile("t0").embedding[None], 5)
    gallery.delete(["gone"])
    by_id = {hit.tile.id: hit for hit in hits}
    two, none, gone, zero = gallery.local_maps([by_id[name] for name in ("t2", "without", "gone", "t0")])
    assert (none, gone) == (None, None)
    np.testing.assert_array_equal(two, maps[2])
    np.testing.assert_array_equal(zero, maps[0])


def test_local_descriptors_are_those_of_the_tile_as_it_is_now(gallery, new_tile, monkeypatch):
    """However often they were asked for before, and however few are kept at hand."""
    monkeypatch.setattr("service.ground.local_maps.CACHED_BYTES", 2 * 4 * 2 * 3)

    def write(number, value):
        gallery.upsert([replace(new_tile(f"t{number}"), local=np.full((4, 2, 3), value, np.int8))])

    def values():
        return [None if each is None else int(each[0, 0, 0]) for each in gallery.local_maps(hits)]

    for number in range(3):
        write(number, number)
    (hits,) = gallery.search(new_tile("t0").embedding[None], 3)
    hits.sort(key=lambda hit: hit.tile.id)
    assert values() == values() == [0, 1, 2]
    write(1, 7)
    assert values() == values() == [0, 7, 2]
    gallery.delete(["t2"])
    assert values() == values() == [0, 7, None]
    gallery.upsert([new_tile("t0")])  # an image of which there are none
    assert values() == [None, 7, None]
