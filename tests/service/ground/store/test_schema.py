"""Files of other schemas are named, with the way to a new one, and left as they are."""

import sqlite3
from contextlib import closing

import pytest

from service.errors import GalleryUnusable
from service.ground.store.schema import APPLICATION_ID, SCHEMA_VERSION
from service.ground.store.store import Store


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_gallery_of_another_version_is_refused_with_the_way_to_a_new_one(tmp_path, version):
    path = tmp_path / "old.gallery"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE tiles (id)")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(GalleryUnusable, match=r"old\.gallery .*aerofix gallery add SOURCE --gallery old\.gallery"):
        Store(path)
    assert path.read_bytes() == before
