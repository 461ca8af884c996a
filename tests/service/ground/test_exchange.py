"""Windows copied between a gallery file and a real ``milvus-lite`` server, and compared."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.errors import GalleryReadOnly, GalleryUnusable, MapNotFound
from service.geo import Circle
from service.ground import exchange
from service.ground.exchange import chosen, pull, push
from service.ground.gallery import Gallery
from service.ground.index.collection import Collection
from service.ground.index.keys import WindowKeys
from service.ground.index.milvus import MilvusIndex
from service.ground.maps import NewMap
from service.ground.records import NewTile
from service.ground.store.imports import Step
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile
from service.ground.windows import pack

DIM, ZOOM, WINDOWS = 16, 17, 60
NAMES = (f"exchange{n}" for n in itertools.count())


def embeddings(seed):
    made = np.random.default_rng(seed).normal(size=(WINDOWS, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def make(path, **maps):
    """A gallery of maps of a row of windows, each map with the embeddings of its seed."""
    with Gallery.open(path, "a model", DIM) as gallery:
        for name, seed in maps.items():
            import_id = f"{seed:016x}"
            gallery.imports.create(f"{name}.tif", {"map": name}, WINDOWS, import_id)
            gallery.imports.begin(import_id, WINDOWS)
            new = NewMap(name, f"{name}.tif", (0.0, 10.0, 1.0, 11.0), 0.5, None, (ZOOM,), True, 15, ZOOM)
            known = gallery.maps.create(new, True, import_id)
            ids = pack(known.number, ZOOM, np.full(WINDOWS, 130_000), np.arange(150_000, 150_000 + WINDOWS))
            gallery.maps.put_windows(known.number, ids, list(embeddings(seed)), {}, Step(import_id, WINDOWS))
    return path


@pytest.fixture
def collection(milvus_lite):
    opened = Collection(milvus_lite, next(NAMES), "a model", DIM)
    yield opened
    opened.close()


@pytest.fixture
def sent(collection):
    """``sent(path, *maps)``: a file's maps are copied to Milvus; what came of it."""

    def copy(path, *maps):
        with closing(Store(path, read_only=True)) as store:
            return push(store, chosen(store, maps), collection, lambda _: None)

    return copy


@pytest.fixture
def shared(collection):
    """``shared(path)``: a gallery file whose vectors are searched in Milvus."""
    return lambda path: Gallery.open(path, "a model", DIM, collection=collection)


def test_what_is_copied_is_found_as_in_the_file(tmp_path, sent, shared):
    path = make(tmp_path / "g.gallery", town=1, field=2)
    copied = sent(path)
    assert (copied.windows, copied.recall) == (2 * WINDOWS, 1.0)
    with Gallery.open(path, "a model", DIM) as alone:
        queries, (place, _) = embeddings(3)[:9], alone.geometry(alone.find(embeddings(1)[7], 1))
        near = Circle(*place[0], 500.0)
        wanted = [
            [[(hit.tile.id, hit.map) for hit in hits] for hits in alone.search(queries, 20, area, maps)]
            for area, maps in ((None, ()), (near, ()), (None, ("field",)))
        ]
        counts = alone.count(), alone.count(near), alone.count(near, ("field",))
    with shared(path) as gallery, shared(path) as another:  # two services on one file
        for each in (gallery, another):
            found = [
                [[(hit.tile.id, hit.map) for hit in hits] for hits in each.search(queries, 20, area, maps)]
                for area, maps in ((None, ()), (near, ()), (None, ("field",)))
            ]
            assert found == wanted
            assert (each.count(), each.count(near), each.count(near, ("field",))) == counts
        assert gallery.info().index["device"] == "milvus"
        gallery.check()


def test_an_index_that_is_not_searched_yet_is_asked_again(tmp_path, sent, monkeypatch):
    path, search, asked = make(tmp_path / "g.gallery", town=1), MilvusIndex.search, []

    def late(index, queries, count):
        scores, ids = search(index, queries, count)
        asked.append(len(queries))
        return (scores, ids) if len(asked) == 3 else (np.full_like(scores, -np.inf), ids)

    monkeypatch.setattr(MilvusIndex, "search", late)
    monkeypatch.setattr(exchange, "RECALL_PAUSE_S", 0)
    assert sent(path).recall == 1.0
    assert len(asked) == 3
    asked[:] = range(3)  # from now on it finds nothing
    with pytest.raises(GalleryUnusable, match=r"finds 0\.0%"):
        sent(path)


def test_a_gallery_in_milvus_is_only_looked_at(tmp_path, sent, shared):
    path = make(tmp_path / "g.gallery", town=1)
    sent(path)
    before = path.read_bytes()
    with shared(path) as gallery:
        town = gallery.maps.get("town")
        for change in (
            lambda: gallery.maps.delete(town.number),
            lambda: gallery.delete(["town/17/130000/150003"]),
            lambda: gallery.delete_in((0, 0, 1, 1)),
            lambda: gallery.imports.create("a", {}, 1, "0" * 16),
        ):
            with pytest.raises(GalleryReadOnly, match="aerofix gallery copy"):
                change()
        assert gallery.count() == WINDOWS
    assert path.read_bytes() == before


def test_copying_again_mends_what_differs(tmp_path, sent, collection):
    path = make(tmp_path / "g.gallery", town=1)
    sent(path)
    with closing(Store(path, read_only=True)) as store:
        (town,) = store.maps.all()
    keys = WindowKeys.of_maps([town])
    ids = pack(town.number, ZOOM, np.full(2, 130_000), np.array([150_000, 160_000]))
    collection.put(keys.of(ids), np.ones((2, DIM), np.float16), np.zeros((2, 2)))  # one changed, one too many
    assert collection.count(*keys.span(town.number)) == WINDOWS + 1
    assert sent(path).windows == WINDOWS
    assert collection.count(*keys.span(town.number)) == WINDOWS


def test_the_way_back_gives_the_file_the_windows_that_milvus_has(tmp_path, sent, collection):
    path = make(tmp_path / "g.gallery", town=1, field=2)
    sent(path)
    with Gallery.open(path, "a model", DIM) as gallery:
        gallery.delete(["town/17/130000/150003", "field/17/130000/150004"])
    with closing(Store(path)) as store:
        copied = pull(store, chosen(store, ["town"]), collection, lambda _: None)
    assert copied.windows == WINDOWS
    with Gallery.open(path, "a model", DIM) as gallery:
        assert gallery.count() == 2 * WINDOWS - 1  # field was not copied
        (hit,) = gallery.search(embeddings(1)[3:4], 1)[0]
        assert (hit.tile.id, hit.score) == ("town/17/130000/150003", pytest.approx(1, abs=1e-3))


def test_two_writers_lose_nothing(tmp_path, sent, shared):
    """Two files that number their maps alike, and both with the same map, copied at the same time."""
    common = make(tmp_path / "one.gallery", town=1)
    (tmp_path / "two.gallery").write_bytes(common.read_bytes())
    one, two = make(common, field=2), make(tmp_path / "two.gallery", forest=3)
    with ThreadPoolExecutor(2) as pool:
        copies = [copy.result() for copy in [pool.submit(sent, path) for path in (one, two)]]
    assert [copied.windows for copied in copies] == [2 * WINDOWS] * 2
    for path, name, seed in ((one, "field", 2), (two, "forest", 3)):
        with shared(path) as gallery:
            hits = gallery.search(embeddings(seed)[:5], 1)
            assert [hit.tile.id for (hit,) in hits] == [f"{name}/17/130000/{150_000 + n}" for n in range(5)]


@pytest.mark.parametrize("change", ["fewer", "others", "none"])
def test_a_service_is_not_ready_for_what_milvus_does_not_have(tmp_path, sent, shared, collection, change):
    path = make(tmp_path / "g.gallery", town=1)
    if change != "none":
        sent(path)
    with closing(Store(path, read_only=True)) as store:
        keys = WindowKeys.of_maps(store.maps.all())
        ((ids, vectors),) = store.maps.windows()
    if change == "fewer":
        collection.remove(keys.of(ids[:1]))
    elif change == "others":
        turned = np.roll(vectors, 1, axis=1)
        collection.put(keys.of(ids), turned, np.zeros((WINDOWS, 2)))
    with pytest.raises(GalleryUnusable, match="aerofix gallery copy"):
        shared(path)


def test_what_cannot_be_copied_is_said(tmp_path, sent):
    path = make(tmp_path / "g.gallery", town=1)
    with pytest.raises(MapNotFound, match="forest"):
        sent(path, "forest")
    with Gallery.open(path, "a model", DIM) as gallery:
        tile = Tile("a", Footprint.from_centre(10, 10, 0.5, 64, 64))
        gallery.upsert([NewTile(tile, embeddings(4)[0], b"a picture")])
    with pytest.raises(GalleryUnusable, match="single pictures"):
        sent(path)


def test_the_command_copies_both_ways(tmp_path, milvus_lite):
    path, run = make(tmp_path / "g.gallery", town=1), CliRunner()
    for way in ([str(path), milvus_lite], [milvus_lite, str(path)]):
        done = run.invoke(app, ["gallery", "copy", *way, "--collection", "by_command"])
        assert done.exit_code == 0, done.output
        assert f"{WINDOWS} windows of 1 maps, the same" in " ".join(done.output.split())
    for way in ([str(path), str(path)], [milvus_lite, milvus_lite]):
        assert run.invoke(app, ["gallery", "copy", *way]).exit_code == 2
    missing = run.invoke(app, ["gallery", "copy", str(tmp_path / "none.gallery"), milvus_lite])
    assert (missing.exit_code, "there is no gallery" in missing.output) == (1, True)
