"""Maps in a gallery: made, searched beside others, replaced and deleted, and there again after a restart."""

import functools
import operator
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import InvalidParameter, MapNotFound
from service.geo import Circle
from service.ground.elevation import Elevation, Grid
from service.ground.gallery import Gallery
from service.ground.maps import NewMap, check_map_name
from service.ground.store.copies import verify
from service.ground.store.file import GalleryFile
from service.ground.store.imports import ImportStopped, Step
from service.ground.windows import key_of, pack, range_of

DIM, ZOOM = 16, 17
LOCAL = (2, 8, 8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "g.gallery"


@pytest.fixture
def gallery(path):
    with Gallery.open(path, "model-1", DIM, local_shape=LOCAL) as gallery:
        yield gallery


def vectors(seed, count):
    made = np.random.default_rng(seed).normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def add_map(gallery, name, seed, columns=20, first=100_000, live=True, import_id=None):
    """A map of one row of windows, each with the embedding of its own number, as an import would add it."""
    import_id = import_id or f"{seed:016x}"
    gallery.imports.create(f"{name}.tif", {"map": name}, columns, import_id)
    west, step = first * 112 / (256 * 2**ZOOM) * 360 - 180, 112 / (256 * 2**ZOOM) * 360
    bounds = (west, 10.0, west + (columns + 1) * step, 10.01)
    made = gallery.maps.create(NewMap(name, f"{name}.tif", bounds, 0.5, None, (ZOOM,), True, 15, ZOOM), live, import_id)
    gallery.imports.begin(import_id, columns)
    row = int(gallery.lattice.windows_in(_row(bounds)).top)
    ids = pack(made.number, ZOOM, np.full(columns, row), np.arange(first, first + columns))
    embeddings = vectors(seed, columns)
    for start in range(0, columns, 8):
        part = slice(start, start + 8)
        blocks = {int(key): np.full((2, 4, 4), seed, np.int8) for key in ids[part]}
        step = Step(import_id, min(start + 8, columns))
        gallery.maps.put_windows(made.number, ids[part], list(embeddings[part]), blocks, step)
    return made, ids, embeddings


def _row(bounds):
    from service.ground.windows import rectangle_of

    return rectangle_of(bounds, ZOOM)


def best(gallery, embedding, k=1, **options):
    return gallery.search(embedding[None], k, **options)[0]


def test_windows_are_found_as_tiles_of_their_map(gallery):
    made, ids, embeddings = add_map(gallery, "town", 1)
    (hit,) = best(gallery, embeddings[7])
    row = hit.tile.id.split("/")[2]
    assert (hit.tile.id, hit.map, hit.number) == (f"town/{ZOOM}/{row}/100007", "town", int(ids[7]))
    assert hit.score == pytest.approx(1, abs=1e-3)
    assert gallery.tile(hit.tile.id).footprint.centre == hit.tile.footprint.centre
    assert gallery.count() == 20
    assert gallery.tile(f"town/{ZOOM}/{row}/99999") is None
    assert gallery.tile(f"village/{ZOOM}/{row}/100007") is None
    assert gallery.info().bounds == made.bounds
    assert gallery.info().tile_side_m == pytest.approx(gallery.lattice.side_m(ZOOM, 10.005), rel=1e-6)


def test_everything_is_there_after_a_restart(gallery, path, new_tile):
    _, _, town = add_map(gallery, "town", 1)
    _, _, port = add_map(gallery, "port", 2, first=200_000)
    gallery.upsert([new_tile("loose", seed=3)])
    queries = np.vstack([town[:3], port[:3]])
    before = [gallery.search(queries, 10), gallery.info(), gallery.maps.all(), gallery.page(None, 100)]
    gallery.close()
    with Gallery.open(path, "model-1", DIM, local_shape=LOCAL) as again:
        assert [again.search(queries, 10), again.info(), again.maps.all(), again.page(None, 100)] == before


def test_some_maps_can_be_searched_alone(gallery, new_tile):
    """Two maps of one place, one elsewhere, and a loose picture, all with the same embeddings."""
    add_map(gallery, "spring", 1)
    _made, _, embeddings = add_map(gallery, "autumn", 1, import_id="a" * 16)
    _far, _, _ = add_map(gallery, "far", 1, first=300_000, import_id="f" * 16)
    gallery.upsert([type(new_tile("a"))(new_tile("a").tile, embeddings[5], b"j")])
    assert [hit.map for hit in best(gallery, embeddings[5], 4)] == [None, "spring", "autumn", "far"]
    assert [hit.map for hit in best(gallery, embeddings[5], 1, maps=["autumn"])] == ["autumn"]
    assert {hit.map for hit in best(gallery, embeddings[5], 60, maps=["autumn", "far"])} == {"autumn", "far"}
    assert len(best(gallery, embeddings[5], 60, maps=["autumn", "far", "far"])) == 40
    assert gallery.count(maps=["autumn", "far"]) == 40
    lat, lon = best(gallery, embeddings[5], 1, maps=["far"])[0].tile.footprint.centre
    near = Circle(lat, lon, 10)
    assert [hit.map for hit in best(gallery, embeddings[0], 60, area=near, maps=["autumn", "far"])] == ["far"]
    assert gallery.count(near, maps=["far"]) == 1
    assert gallery.count(near, maps=["autumn"]) == 0
    with pytest.raises(MapNotFound, match="nowhere"):
        best(gallery, embeddings[5], maps=["nowhere"])


def test_a_small_map_is_found_among_many_windows_of_the_same_place(gallery):
    add_map(gallery, "large", 1, columns=400)
    _, _, embeddings = add_map(gallery, "small", 2, columns=3)
    assert [hit.map for hit in best(gallery, embeddings[1], 3, maps=["small"])] == ["small"] * 3


def test_a_map_that_is_to_replace_another_is_not_seen_before_it_is_whole(gallery, path):
    old, _, embeddings = add_map(gallery, "town", 1)
    new, _, others = add_map(gallery, "town", 2, live=False)
    assert gallery.count() == 20
    assert gallery.maps.all() == [old]
    assert best(gallery, others[3])[0].score < 0.99
    gallery.maps.finish(new.number)
    assert [each.number for each in gallery.maps.all()] == [new.number]
    assert best(gallery, others[3])[0].score > 0.99
    assert best(gallery, embeddings[3])[0].score < 0.99
    assert gallery.local_maps(best(gallery, others[3]))[0][0, 4, 4] == 2
    gallery.close()
    with Gallery.open(path, "model-1", DIM, local_shape=LOCAL) as again:
        assert best(again, others[3])[0].map == "town"
        assert again.count() == 20


def test_what_was_to_replace_a_map_is_dropped_when_nobody_goes_on(gallery, path):
    add_map(gallery, "town", 1)
    new, _, _ = add_map(gallery, "town", 2, live=False)
    gallery.maps.drop_unfinished({new.number})
    assert gallery.maps.by_number(new.number) == new
    gallery.maps.drop_unfinished(set())
    assert gallery.maps.by_number(new.number) is None
    assert gallery.count() == 20


def test_a_deleted_map_leaves_nothing(gallery, path):
    made, _, embeddings = add_map(gallery, "town", 1)
    add_map(gallery, "port", 2, first=200_000)
    gallery.maps.put_tiles({key_of(made.number, ZOOM, 1, 1): b"webp"}, Step(f"{1:016x}", 20))
    gallery.maps.delete(made.number)
    assert {hit.map for hit in best(gallery, embeddings[3], 100)} == {"port"}
    with pytest.raises(MapNotFound, match="aerofix map list"):
        gallery.maps.get("town")
    for table in ("pixels", "blocks", "windows"):
        left = gallery._store.file.rows(f"SELECT * FROM {table}")
        assert len(left) == {"pixels": 0, "blocks": 20, "windows": 3}[table]


class Crash(Exception):
    """Ends a write half way."""


def many_tiles(gallery, made, count):
    gallery.maps.put_tiles({key_of(made.number, ZOOM, 1, x): b"webp" for x in range(count)}, Step(f"{1:016x}", 20))


def test_a_map_is_deleted_in_pieces_between_which_others_have_their_turn(gallery, monkeypatch):
    made, _, _ = add_map(gallery, "town", 1)
    port, _, embeddings = add_map(gallery, "port", 2, first=200_000)
    many_tiles(gallery, made, 20)
    turns = []

    def others(file):
        with ThreadPoolExecutor(1) as thread:  # a lock that is held here would keep it waiting
            looked = thread.submit(gallery.maps.size_bytes, port), thread.submit(rows_of, gallery, made.number)
            turns.append([each.result(timeout=60) for each in looked])
            thread.submit(
                gallery.maps.put_tiles, {key_of(port.number, ZOOM, 1, 1): b"x"}, Step(f"{2:016x}", 20)
            ).result(60)

    monkeypatch.setattr("service.ground.store.maps.DELETED_AT_ONCE", {"pixels": 6, "blocks": 6, "windows": 1})
    monkeypatch.setattr(GalleryFile, "pause", others)
    gallery.maps.delete(made.number)
    left = [mine for _, mine in turns]
    assert len(turns) > 6
    assert left == sorted(set(left), reverse=True)
    assert all(theirs > 0 for theirs, _ in turns)
    assert best(gallery, embeddings[3])[0].map == "port"


def rows_of(gallery, number):
    """Pixels, blocks and rows of windows that a map has in the file."""
    counts = [
        gallery._store.file.one(f"SELECT count(*) FROM {table} WHERE id BETWEEN ? AND ?", *range_of(number))
        for table in ("pixels", "blocks")
    ]
    return sum(counts) + gallery._store.file.one("SELECT count(*) FROM windows WHERE map = ?", number)


def test_a_map_that_is_gone_is_deleted_no_second_time(gallery):
    made, _, _ = add_map(gallery, "town", 1)
    gallery.maps.delete(made.number)
    before = gallery.generation
    gallery.maps.delete(made.number)
    assert gallery.generation == before


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_map_that_a_crash_leaves_half_deleted_is_not_found_and_goes_at_the_next_start(
    gallery, path, monkeypatch, how
):
    made, _, _ = add_map(gallery, "town", 1)
    many_tiles(gallery, made, 20)
    if how == "replaced":
        new, _, _ = add_map(gallery, "town", 2, live=False)

    def crash(file):
        raise Crash

    monkeypatch.setattr("service.ground.store.maps.DELETED_AT_ONCE", {"pixels": 6, "blocks": 6, "windows": 1})
    monkeypatch.setattr(GalleryFile, "pause", crash)
    with pytest.raises(Crash):
        gallery.maps.delete(made.number) if how == "deleted" else gallery.maps.finish(new.number)
    monkeypatch.undo()
    gallery.close()
    with Gallery.open(path, "model-1", DIM, local_shape=LOCAL) as again:
        assert [each.number for each in again.maps.all()] == ([] if how == "deleted" else [new.number])
        assert again.count() == (0 if how == "deleted" else 20)
        assert verify(again._store) == again.count()
        again.maps.drop_unfinished(set())
        first, last = range_of(made.number)
        for table in ("pixels", "blocks"):
            assert again._store.file.rows(f"SELECT id FROM {table} WHERE id BETWEEN ? AND ?", (first, last)) == []
        assert verify(again._store) == again.count()


def test_an_area_is_deleted_in_pieces(gallery, path, new_tile, monkeypatch):
    gallery.upsert([new_tile(f"t{n}", seed=n) for n in range(7)])
    monkeypatch.setattr("service.ground.gallery.DELETED_AT_ONCE", 3)
    generation = gallery.generation
    assert gallery.delete_in((-180, -90, 180, 90)) == 7
    assert (gallery.count(), gallery.generation) == (0, generation + 3)


def test_windows_can_be_deleted_one_by_one_and_by_area(gallery, path):
    _, ids, embeddings = add_map(gallery, "town", 1)
    hits = [best(gallery, embedding)[0] for embedding in embeddings]
    assert gallery.delete([hits[3].tile.id, hits[3].tile.id, "unknown"]) == 1
    lat, lon = hits[9].tile.footprint.centre
    assert gallery.delete_in((lon - 1e-6, lat - 1e-6, lon + 1e-6, lat + 1e-6)) == 1
    left = sorted(hit.number for hit in best(gallery, embeddings[0], 100))
    assert left == [int(key) for n, key in enumerate(ids) if n not in (3, 9)]
    gallery.close()
    with Gallery.open(path, "model-1", DIM) as again:
        assert sorted(hit.number for hit in best(again, embeddings[0], 100)) == left


def test_pages_list_loose_pictures_and_then_windows_once_each(gallery, new_tile):
    add_map(gallery, "town", 1)
    gallery.upsert([new_tile(f"t{n}", seed=n) for n in range(3)])
    listed, cursor = [], 0
    while cursor is not None:
        page = gallery.page(None, 4, cursor)
        listed.append([tile.id.split("/")[0] for tile in page.tiles])
        cursor = page.cursor
    assert functools.reduce(operator.iadd, listed, []) == ["t0", "t1", "t2"] + ["town"] * 20
    assert [len(page) for page in listed] == [4, 4, 4, 4, 4, 3]


def test_a_window_that_is_stored_again_is_updated(gallery):
    made, ids, _ = add_map(gallery, "town", 1)
    gallery.imports.create("more.tif", {"map": "town"}, 9, "f" * 16)
    gallery.imports.begin("f" * 16, 9)
    embeddings = vectors(5, 2)
    both = np.array([ids[4], ids[-1] + 1])
    gallery.maps.put_windows(made.number, both, list(embeddings), {}, Step("f" * 16, 2))
    job = gallery.imports.get("f" * 16)
    assert (job.added, job.updated, gallery.count()) == (1, 1, 21)
    assert best(gallery, embeddings[0])[0].number == int(ids[4])


def test_nothing_of_a_cancelled_import_is_kept(gallery):
    made, ids, embeddings = add_map(gallery, "town", 1)
    gallery.imports.finish(f"{1:016x}", "cancelled")
    with pytest.raises(ImportStopped):
        gallery.maps.put_windows(made.number, ids + 100, list(embeddings), {}, Step(f"{1:016x}", 20))
    assert gallery.count() == 20


def test_windows_survive_kill_9(path):
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
from test_atlas import DIM, LOCAL, add_map
from service.ground.elevation import Elevation, Grid
from service.ground.gallery import Gallery
add_map(Gallery.open({str(path)!r}, "model-1", DIM, local_shape=LOCAL), "town", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with Gallery.open(path, "model-1", DIM, local_shape=LOCAL) as gallery:
        (hit,) = best(gallery, vectors(1, 20)[7])
        assert (hit.score, gallery.count()) == (pytest.approx(1, abs=1e-3), 20)
        assert gallery.local_maps([hit])[0][0, 4, 4] == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", " a", "a\n", "x" * 101])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(InvalidParameter):
        check_map_name(name)


def test_looking_waits_for_no_search(gallery, monkeypatch):
    """While a search holds the index, everything else answers."""
    import threading

    _, _ids, embeddings = add_map(gallery, "town", 1)
    searching, go_on = threading.Event(), threading.Event()
    search = gallery._index.search

    def held(*arguments):
        searching.set()
        assert go_on.wait(60)
        return search(*arguments)

    monkeypatch.setattr(gallery._index, "search", held)
    thread = threading.Thread(target=best, args=(gallery, embeddings[3]))
    thread.start()
    assert searching.wait(60)
    answers = []

    def look():
        answers.append(
            (gallery.count(), gallery.tile("x"), gallery.info().bounds, gallery.generation, gallery.maps.all())
        )

    looking = threading.Thread(target=look)
    looking.start()
    looking.join(60)
    assert len(answers) == 1
    go_on.set()
    thread.join(60)


def test_what_is_read_of_a_map_while_it_is_deleted_is_not_taken_for_that_of_the_next(gallery, monkeypatch):
    """The next map gets its number, as all others were used."""
    monkeypatch.setattr("service.ground.store.maps.MAX_MAP", 1)
    made, _, embeddings = add_map(gallery, "town", 1)
    hits = gallery.hits(gallery.find(embeddings[0], 3))
    grid = Grid("dem.tif", made.bounds[0], made.bounds[3], 0.01, 0.01, 5.0, 5.0, 1.0)
    gallery.maps.put_elevation(made, Elevation(grid, np.full((2, 2), 5, np.float32)))
    read = []

    def meanwhile(file):
        read.append((gallery.maps.elevation(made), gallery.local_maps(hits)))

    monkeypatch.setattr(GalleryFile, "pause", meanwhile)
    gallery.maps.delete(made.number)
    assert read[-1][0] is not None
    again, _, _ = add_map(gallery, "town", 2)
    assert again.number == made.number
    assert gallery.maps.elevation(again) is None
    assert gallery.maps.elevation_grid(again) is None


def test_where_heights_lie_is_told_without_reading_them(gallery, monkeypatch):
    made, _, _ = add_map(gallery, "town", 1)
    grid = Grid("dem.tif", made.bounds[0], made.bounds[3], 0.01, 0.01, 5.0, 5.0, 1.0)
    gallery.maps.put_elevation(made, Elevation(grid, np.full((2, 2), 5, np.float32)))
    monkeypatch.setattr("service.ground.store.maps.zlib.decompress", lambda *args: pytest.fail("heights were read"))
    assert gallery.maps.elevation_grid(made) == grid


def test_heights_are_packed_while_others_read(gallery, monkeypatch):
    made, _, _ = add_map(gallery, "town", 1)
    grid = Grid("dem.tif", made.bounds[0], made.bounds[3], 0.01, 0.01, 5.0, 5.0, 1.0)
    packed = zlib.compress

    def compress(data):
        with ThreadPoolExecutor(1) as other:
            assert other.submit(gallery.maps.size_bytes, made).result(timeout=60) > 0
        return packed(data)

    monkeypatch.setattr("service.ground.store.maps.zlib.compress", compress)
    gallery.maps.put_elevation(made, Elevation(grid, np.full((2, 2), 5, np.float32)))
    assert gallery.maps.elevation(made).at(10.005, made.bounds[0] + 0.005) == 5
