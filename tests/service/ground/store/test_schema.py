"""Files of older schemas are brought up to date, whole or not at all."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.errors import GalleryUnusable, StorageFull
from service.ground.store.copies import verify
from service.ground.store.imports import Step
from service.ground.store.reembed import Reembedding
from service.ground.store.schema import SCHEMA_VERSION
from service.ground.store.store import Store

WRITTEN_BY_1 = Path(__file__).parent / "data" / "schema-1.gz"
"""Three tiles upserted and one of them deleted, by the code that had schema 1."""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.gallery"
    path.write_bytes(gzip.decompress(WRITTEN_BY_1.read_bytes()))
    return path


WRITTEN_BY_2 = WRITTEN_BY_1.with_name("schema-2.gz")
"""The same by the code that had schema 2, with another model's embedding of the first tile kept for later."""


WRITTEN_BY_3 = WRITTEN_BY_1.with_name("schema-3.gz")
"""The same by the code that had schema 3, with descriptors of the first tile and an import that was running."""


def version(path):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("PRAGMA user_version").fetchone()[0] & 0xFF


def test_a_gallery_of_schema_1_keeps_everything(old):
    assert version(old) == 1
    with closing(Store(old)) as store:
        town, fiji = store.load()
        assert (town.number, town.tile.id, town.tile.properties) == (1, "town/r00c00", {"flight": 7, "note": "灯台"})
        assert (fiji.number, fiji.tile.id) == (3, "fiji")
        expected = np.eye(8)[0] + 0.1
        np.testing.assert_allclose(town.embedding, expected / np.linalg.norm(expected), atol=1e-3)
        assert store.image("town/r00c00").startswith(b"\xff\xd8\xff")
        assert (store.identity, store.generation) == ("1:old-model", 4)
        assert store.numbers_in((179, -17, -179, -16)) == [3]
        assert verify(store) == 2
        assert store.imports.newest(10) == []
    assert version(old) == SCHEMA_VERSION
    with closing(Store(old)) as store:
        assert verify(store) == 2


def test_a_gallery_of_schema_2_gets_room_for_descriptors(tmp_path):
    path = tmp_path / "old.gallery"
    path.write_bytes(gzip.decompress(WRITTEN_BY_2.read_bytes()))
    assert version(path) == 2
    with closing(Store(path)) as store:
        assert [(row.number, row.tile.id) for row in store.load()] == [(1, "town/r00c00"), (3, "fiji")]
        assert (store.identity, store.generation) == ("1:model", 4)
        assert store.local_maps([1, 3]) == {}
        assert verify(store) == 2
        assert Reembedding(store, "1:other").counts() == (0, 2)  # what was kept has no descriptors
        row, local = next(store.load()), np.arange(-6, 6, dtype=np.int8).reshape(3, 2, 2)
        store.upsert([(row.tile, row.embedding, b"new", local)])
    assert version(path) == SCHEMA_VERSION
    with closing(Store(path)) as store:
        np.testing.assert_array_equal(store.local_maps([1, 3])[1], local)
        assert verify(store) == 2


def test_an_import_of_schema_3_goes_on(tmp_path):
    path = tmp_path / "old.gallery"
    path.write_bytes(gzip.decompress(WRITTEN_BY_3.read_bytes()))
    assert version(path) == 3
    with closing(Store(path)) as store:
        assert [(row.number, row.tile.id) for row in store.load()] == [(1, "town/r00c00"), (3, "fiji")]
        assert verify(store) == 2
        np.testing.assert_array_equal(store.local_maps([1])[1], np.arange(-6, 6, dtype=np.int8).reshape(3, 2, 2))
        (job,) = store.imports.live()
        assert (job.name, job.state, job.done, job.total, job.skipped) == ("map.tif", "running", 4, 10, 2)
        store.imports.start(job.id)
        store.imports.begin(job.id, 10)
        row = next(store.load())
        store.upsert([(row.tile, row.embedding, b"new")], Step(job.id, 10))
        assert store.imports.finish(job.id, "done")
    assert version(path) == SCHEMA_VERSION
    with closing(Store(path)) as store:
        assert store.imports.get(job.id).state == "done"


def test_a_migrated_gallery_has_the_tables_of_a_new_one(old, tmp_path):
    def tables(path):
        Store(path).close()
        with closing(sqlite3.connect(path)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: {column[1] for column in db.execute(f"PRAGMA table_info({name})")} for name in names}

    migrated, new = tables(old), tables(tmp_path / "new.gallery")
    assert migrated.pop("details") >= new.pop("details")  # see the migration from 2 to 3
    assert migrated == new


def test_a_migrated_gallery_goes_on_where_it_was(old):
    with closing(Store(old)) as store:
        number, embedding = 1, next(store.load()).embedding
        tile = next(store.load()).tile
        assert store.upsert([(tile, embedding, b"new")]) == [(number, False)]
        assert store.delete(["fiji"]) == [3]
        assert store.generation == 6


def test_a_full_disk_leaves_the_old_file_as_it_was(old, monkeypatch):
    def too_small(database, **options):
        db = sqlite3.Connection(database, **options)
        db.execute(f"PRAGMA max_page_count = {old.stat().st_size // 4096}")
        return db

    with monkeypatch.context() as patch:
        patch.setattr("service.ground.store.file.sqlite3.connect", too_small)
        with pytest.raises(StorageFull):
            Store(old)
    assert version(old) == 1
    with closing(Store(old)) as store:
        assert verify(store) == 2


def test_a_damaged_old_file_is_named_and_left_alone(old):
    with closing(sqlite3.connect(old)) as db:
        db.execute("UPDATE tiles SET corners = '[1, 2]' WHERE number = 1")
        db.commit()
    with closing(Store(old)) as store, pytest.raises(GalleryUnusable, match=r"old\.gallery is damaged \(row 1"):
        list(store.load())
