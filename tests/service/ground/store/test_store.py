import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import AerofixError, GalleryUnusable, ModelMismatch, StorageFull
from service.ground.store.copies import verify
from service.ground.store.schema import checksum, columns_of
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile


def row(tile_id, lat=1.0, lon=2.0, thumbnail=b"jpeg", **properties):
    footprint = Footprint.from_centre(lat, lon, 0.5, 200, 200)
    return Tile(tile_id, footprint, properties), np.arange(4, dtype=np.float16), thumbnail


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gallery.db"


@pytest.fixture
def store(path):
    store = Store(path)
    yield store
    store.close()


def test_what_was_written_is_read_after_reopening(store, path):
    tile, embedding, thumbnail = row("map/r00c00", note="灯台", n=1)
    assert store.upsert([(tile, embedding, thumbnail)]) == [(1, True)]
    store.close()
    again = Store(path)
    (loaded,) = again.load()
    assert (loaded.number, loaded.tile) == (1, tile)
    np.testing.assert_array_equal(loaded.embedding, embedding)
    assert again.image("map/r00c00") == thumbnail
    assert again.image("other") is None
    again.close()


def test_upsert_keeps_the_number_and_replaces_the_rest(store):
    store.upsert([row("a"), row("b")])
    assert store.upsert([row("a", lat=5.0, thumbnail=b"new"), row("c")]) == [(1, False), (3, True)]
    assert [loaded.tile.id for loaded in store.load()] == ["a", "b", "c"]
    assert next(store.load()).tile == row("a", lat=5.0)[0]
    assert store.image("a") == b"new"


def test_numbers_of_deleted_tiles_never_come_back(store):
    store.upsert([row("a"), row("b")])
    assert store.delete(["b", "unknown"]) == [2]
    assert store.upsert([row("b")]) == [(3, True)]
    assert store.image("b") == b"jpeg"


def local_map(seed):
    return np.random.default_rng(seed).integers(-127, 128, (8, 3, 4)).astype(np.int8)


def test_descriptors_are_kept_replaced_and_gone_with_their_tile(store, path):
    store.upsert([(*row("a"), local_map(1)), (*row("b"), local_map(2)), row("c"), (*row("d"), local_map(4))])
    store.upsert([row("a"), (*row("b"), local_map(3))])  # a is now by a model without
    store.delete(["d"])
    store.close()
    again = Store(path)
    maps = again.local_maps([4, 3, 2, 1, 99])
    assert list(maps) == [2]
    np.testing.assert_array_equal(maps[2], local_map(3))
    assert again.local_maps([]) == {}
    again.close()


@pytest.mark.parametrize(
    "damage", ["x'0300'", "substr(local, 1, 90)", "CAST(local || x'00' AS BLOB)", "'text'", "zeroblob(102)"]
)
def test_damaged_descriptors_are_named(store, damage):
    store.upsert([(*row("a"), local_map(1))])
    store.file.db.execute(f"UPDATE descriptors SET local = {damage}")
    for read in (lambda: store.local_maps([1]), lambda: verify(store)):
        with pytest.raises(GalleryUnusable, match="the descriptors of row 1 cannot be read"):
            read()


def test_descriptors_without_a_tile_are_named(store):
    store.upsert([(*row("a"), local_map(1))])
    store.file.db.execute("INSERT INTO descriptors SELECT 7, local, checksum FROM descriptors")
    with pytest.raises(GalleryUnusable, match="descriptors of tiles that it does not list"):
        verify(store)


def test_deleting_leaves_nothing_behind(store):
    store.upsert([row("a"), (*row("b"), local_map(1))])
    store.delete(["a", "b"])
    for table in ("tiles", "details", "centres", "descriptors"):
        assert store.file.db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_each_acknowledged_write_is_one_generation(store, path):
    assert store.generation == 0
    store.upsert([row("a"), row("b")])
    store.delete(["a"])
    store.delete(["a"])  # nothing left to do, nothing written
    assert store.generation == 2
    store.close()
    again = Store(path)
    assert again.generation == 2
    again.close()


def test_an_empty_gallery_adopts_the_model_and_a_full_one_keeps_it(store):
    store.claim("one", 224)
    store.claim("two", 224)
    store.upsert([row("a")])
    store.claim("two", 224)
    with pytest.raises(ModelMismatch, match=r"model two, but one is loaded.*aerofix gallery reembed"):
        store.claim("one", 224)
    assert store.identity == "two"


CENTRES = st.tuples(st.floats(-80, 80), st.one_of(st.floats(-180, 180), st.floats(179, 180), st.floats(-180, -179)))


@settings(max_examples=50)
@given(st.lists(CENTRES, max_size=15), CENTRES, CENTRES, st.integers(0, 5), st.integers(1, 20))
def test_numbers_in_bounds_equal_brute_force(centres, one, other, after, limit):
    south, north = sorted((one[0], other[0]))
    west, east = one[1], other[1]
    store = Store(":memory:")
    store.upsert([row(str(n), *centre) for n, centre in enumerate(centres)])
    expected = []
    for loaded in store.load():
        lat, lon = loaded.tile.footprint.centre
        inside = west <= lon <= east if west <= east else (lon >= west or lon <= east)
        if south <= lat <= north and inside and loaded.number > after:
            expected.append(loaded.number)
    assert store.numbers_in((west, south, east, north), after, limit) == expected[:limit]
    store.close()


def test_a_full_disk_keeps_nothing_of_the_write_and_all_of_the_rest(store):
    store.upsert([row("a")])
    pages = store.file.db.execute("PRAGMA page_count").fetchone()[0]
    store.file.db.execute(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StorageFull, match="Free space"):
        store.upsert([row("b"), row("a", lat=9.0), row("c", thumbnail=bytes(100_000))])
    assert [loaded.tile for loaded in store.load()] == [row("a")[0]]
    assert store.generation == 1
    store.file.db.execute("PRAGMA max_page_count = 100000")
    store.upsert([row("c", thumbnail=bytes(100_000))])
    assert store.generation == 2


def test_a_failing_batch_keeps_nothing(store):
    with pytest.raises(AttributeError):
        store.upsert([row("a"), (None, None, b"")])
    assert list(store.load()) == []
    store.upsert([row("b")])
    assert store.generation == 1


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_second_process_is_refused(store, path):
    code = """
import sys
from service.ground.store.store import Store
from service.ground.store.copies import verify
from service.errors import GalleryUnusable
try:
    Store(sys.argv[1])
except GalleryUnusable as error:
    print(error)
"""
    assert "in use by another process; stop that one" in run(code, path).stdout
    store.upsert([row("a")])
    assert "in use by another process; stop that one" in run(code, path).stdout
    store.close()
    assert run(code, path).stdout == ""


def test_a_second_store_in_the_same_process_is_refused(store, path):
    with pytest.raises(GalleryUnusable, match="in use"):
        Store(path)
    store.upsert([row("a")])  # the first one is not disturbed


def test_acknowledged_tiles_survive_kill_9(path):
    code = """
import os, signal, sys
import numpy as np
from service.ground.store.store import Store
from service.ground.store.copies import verify
from service.ground.tile import Footprint, Tile
store = Store(sys.argv[1])
for batch in range(3):
    names = [f"{batch}/{n}" for n in range(10)]
    rows = [(Tile(i, Footprint.from_centre(1, 2, 1, 50, 50)), np.ones(4, np.float16), bytes(5000)) for i in names]
    store.upsert(rows)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, path).returncode == -9
    store = Store(path)
    assert len(list(store.load())) == 30
    assert store.image("2/9") == bytes(5000)
    assert store.generation == 3
    store.close()


def test_a_file_that_is_no_database_is_refused(path):
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(GalleryUnusable, match=r"gallery\.db is damaged.*restore FILE.*import the maps again"):
        Store(path)
    assert path.read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("damage", ["overwritten", "truncated"])
def test_a_damaged_file_is_refused_not_read_wrongly(path, damage):
    store = Store(path)
    store.upsert([row(str(n), thumbnail=bytes(3000)) for n in range(200)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        if damage == "truncated":
            file.truncate(size // 2 // 4096 * 4096)
        else:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))

    def read_everything():
        store = Store(path)
        try:
            for loaded in list(store.load()):
                store.image(loaded.tile.id)
        finally:
            store.close()

    with pytest.raises(GalleryUnusable, match="damaged"):
        read_everything()


@pytest.mark.parametrize("column", ["corners = '[1, 2]'", "corners = '[[1,2],[1,2],[1,2],[1,2]]'", "properties = '{'"])
def test_a_row_that_makes_no_sense_is_named(store, path, column):
    store.upsert([row("a")])
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE tiles SET {column}")
    db.close()
    again = Store(path)
    with pytest.raises(GalleryUnusable, match="row 1"):
        list(again.load())
    again.close()


@pytest.mark.parametrize("properties", [r'{"a": "\ud800"}', '{"a": ' + "[" * 400 + "]" * 400 + "}"])
def test_properties_that_an_earlier_version_took_and_no_answer_can_hold_are_left_out(store, path, properties):
    tile, embedding, image = row("a")
    stored = columns_of(tile, embedding)
    check = checksum(tile.id, stored["corners"], stored["gsd_m"], properties, stored["embedding"])
    store.upsert([(tile, embedding, image), row("b", flight=7)])
    store.file.db.execute("UPDATE tiles SET properties = ?, checksum = ? WHERE id = 'a'", (properties, check))
    assert [(loaded.tile.id, loaded.tile.properties) for loaded in store.load()] == [("a", {}), ("b", {"flight": 7})]


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("PRAGMA user_version = 99", "another version of aerofix"),
        ("PRAGMA application_id = 7", "not an aerofix gallery"),
    ],
)
def test_other_databases_are_refused(store, path, statement, says):
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(GalleryUnusable, match=says):
        Store(path)


def test_a_stranger_without_application_id_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(GalleryUnusable, match="name another file"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["missing/gallery.db", "."])
def test_a_path_that_cannot_be_a_file_says_so(tmp_path, where):
    with pytest.raises(GalleryUnusable, match="check that its folder exists"):
        Store(tmp_path / where)


def test_a_closed_store_says_so(store):
    store.close()
    with pytest.raises(AerofixError, match="closed"):
        store.upsert([row("a")])


HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.integers(0, 12), CENTRES),
        st.tuples(st.just("delete"), st.integers(0, 12), st.none()),
        st.tuples(st.just("delete in"), CENTRES, CENTRES),
    ),
    max_size=20,
)


@settings(max_examples=50)
@given(HISTORY)
def test_the_spatial_index_is_right_after_every_history(steps):
    """Also where an id comes back in another place, and after deletions by area, over the antimeridian included."""
    store, places = Store(":memory:"), {}
    for kind, one, other in steps:
        if kind == "upsert":
            store.upsert([row(str(one), *other)])
            places[str(one)] = row(str(one), *other)[0].footprint.centre
        elif kind == "delete":
            store.delete([str(one)])
            places.pop(str(one), None)
        else:
            (south, north), (west, east) = sorted((one[0], other[0])), (one[1], other[1])
            store.delete_in((west, south, east, north))
            places = {
                name: (lat, lon)
                for name, (lat, lon) in places.items()
                if not (south <= lat <= north and (west <= lon <= east if west <= east else not east < lon < west))
            }
        assert verify(store) == len(places)
    assert {each.tile.id: each.tile.footprint.centre for each in store.load()} == places
    store.close()
