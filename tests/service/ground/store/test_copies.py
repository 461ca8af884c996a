"""Snapshots are whole and restorable; what is damaged is named."""

import os
import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

from service.errors import GalleryInUse, GalleryUnusable, NotReady, StorageFull
from service.ground.store.copies import restore, snapshot, verify
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile


def row(tile_id, lat=1.0, lon=2.0, image=b"jpeg"):
    return Tile(tile_id, Footprint.from_centre(lat, lon, 0.5, 200, 200)), np.arange(1, 5, dtype=np.float16), image


@pytest.fixture
def path(tmp_path):
    return tmp_path / "town.gallery"


@pytest.fixture
def store(path):
    store = Store(path)
    store.claim("model", 224)
    store.upsert([row(f"t{n}", lat=n / 100, image=bytes([n]) * 3000) for n in range(50)])
    yield store
    store.close()


def contents(path):
    with closing(Store(path)) as store:
        verify(store)
        return {each.tile.id: store.image(each.tile.id) for each in store.load()}


def test_a_snapshot_holds_everything_but_imports(store, tmp_path):
    store.imports.create("map.tif", {}, 10, "0" * 16)
    store.delete(["t7"])
    snapshot(store, tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == [
        "copy",
        "town.gallery",
        "town.gallery-journal",
    ]  # one file, nothing beside it
    with closing(Store(tmp_path / "copy")) as copy:
        assert (copy.identity, copy.generation) == (store.identity, store.generation)
        assert [each.tile for each in copy.load()] == [each.tile for each in store.load()]
        assert copy.imports.newest(5) == []
    assert len(store.imports.newest(5)) == 1


def test_a_snapshot_is_consistent_while_tiles_are_written(store, tmp_path, monkeypatch):
    """Tiles come and go in pairs: a copy that holds one of a pair only was not made of one moment."""
    monkeypatch.setattr("service.ground.store.copies.PAGES_PER_STEP", 3)
    done = threading.Event()

    def write():
        n = 0
        while not done.is_set():
            n += 1
            store.upsert([row(f"a{n}", image=bytes(5000)), row(f"b{n}", image=bytes(5000))])
            if n > 5:
                store.delete([f"a{n - 5}", f"b{n - 5}"])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for n in range(5):
            snapshot(store, tmp_path / f"copy{n}")
    finally:
        done.set()
        writer.join()
    for n in range(5):
        ids = set(contents(tmp_path / f"copy{n}"))
        assert {i[1:] for i in ids if i[0] == "a"} == {i[1:] for i in ids if i[0] == "b"}
        assert {f"t{n}" for n in range(50)} <= ids


def test_no_space_for_a_snapshot_leaves_nothing_behind(store, tmp_path, monkeypatch):
    real = sqlite3.connect

    def small(database, **options):
        db = real(database, **options)
        db.execute("PRAGMA max_page_count = 10")
        return db

    monkeypatch.setattr("service.ground.store.copies.sqlite3.connect", small)
    with pytest.raises(StorageFull):
        snapshot(store, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


def test_a_snapshot_that_is_given_up_leaves_nothing_behind(store, tmp_path):
    with pytest.raises(NotReady):
        snapshot(store, tmp_path / "copy", lambda: True)
    assert not list(tmp_path.glob("copy*"))
    snapshot(store, tmp_path / "copy")


def test_a_folder_that_is_not_there_is_named(store, tmp_path):
    with pytest.raises(GalleryUnusable, match="folder"):
        snapshot(store, tmp_path / "missing" / "copy")


DAMAGE = {
    "an embedding": ("UPDATE tiles SET embedding = zeroblob(8) WHERE number = 3", "row 3"),
    "an id": ("UPDATE tiles SET id = 'other' WHERE number = 3", "row 3"),
    "an image": ("UPDATE details SET image = x'00' WHERE number = 4", "image of row 4"),
    "a lost image": ("DELETE FROM details WHERE number = 4", "not every tile has its image"),
    "a lost place": ("DELETE FROM centres WHERE number = 4", "spatial index"),
    "another place": ("UPDATE centres SET south = 50, north = 51 WHERE number = 4", "spatial index"),
}


@pytest.mark.parametrize(("statement", "says"), DAMAGE.values(), ids=DAMAGE)
def test_verify_names_what_is_damaged(store, statement, says):
    assert verify(store) == 50
    store.file.db.execute(statement)
    with pytest.raises(GalleryUnusable, match=f"damaged.*{says}"):
        verify(store)


def test_a_damaged_image_is_not_handed_out(store):
    store.file.db.execute("UPDATE details SET image = x'ffd8ff' WHERE number = 1")
    with pytest.raises(GalleryUnusable, match="image of row 1"):
        store.image("t0")


def test_restore_replaces_a_gallery_and_keeps_the_old_one(store, path, tmp_path):
    snapshot(store, tmp_path / "copy")
    store.upsert([row("later")])
    store.close()
    assert restore(tmp_path / "copy", path) == (50, tmp_path / "town.gallery.replaced")
    assert "later" not in contents(path)
    assert "later" in contents(tmp_path / "town.gallery.replaced")
    assert (tmp_path / "copy").exists()


def test_restore_makes_a_gallery_where_there_was_none(store, tmp_path):
    snapshot(store, tmp_path / "copy")
    assert restore(tmp_path / "copy", tmp_path / "new") == (50, None)
    assert len(contents(tmp_path / "new")) == 50


def test_restore_over_a_damaged_gallery_with_its_journal(store, path, tmp_path):
    snapshot(store, tmp_path / "copy")
    store.close()
    path.write_bytes(b"rubbish" * 1000)
    journal = path.with_name(path.name + "-journal")
    journal.write_bytes(b"old journal")
    assert restore(tmp_path / "copy", path)[0] == 50
    assert not journal.exists()
    assert path.with_name(path.name + ".replaced").read_bytes().startswith(b"rubbish")
    assert len(contents(path)) == 50


def test_restore_refuses_what_is_in_use(store, path, tmp_path):
    snapshot(store, tmp_path / "copy")
    with pytest.raises(GalleryInUse, match="in use by another process"):
        restore(tmp_path / "copy", path)
    store.upsert([row("still works")])
    store.close()
    assert "still works" in contents(path)


@pytest.mark.parametrize("kind", ["truncated", "flipped", "text", "missing"])
def test_restore_refuses_a_damaged_snapshot_before_it_touches_anything(store, path, tmp_path, kind):
    copy = tmp_path / "copy"
    snapshot(store, copy)
    store.close()
    data = bytearray(copy.read_bytes())
    if kind == "truncated":
        copy.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        data[data.find(bytes([9]) * 3000) + 1500] ^= 1  # one bit of an image
        copy.write_bytes(data)
    elif kind == "text":
        copy.write_text("no gallery")
    else:
        copy.unlink()
    before = path.read_bytes()
    with pytest.raises(GalleryUnusable, match=r"\bcopy\b(?!\.part)"):
        restore(copy, path)
    assert path.read_bytes() == before
    assert len(contents(path)) == 50
    assert not list(tmp_path.glob("*.part*"))
