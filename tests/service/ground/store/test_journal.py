"""A write that a crash cut off is undone, in the file that it was of and in no other."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from service.errors import GalleryUnusable
from service.ground.store.copies import verify
from service.ground.store.journal import journal_of, new_stamp, with_stamp
from service.ground.store.schema import SCHEMA_VERSION
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile

# Acknowledges ten tiles, copies its file, acknowledges ten more, and waits in the middle of a write that has reached
# the file already, because it does not fit into SQLite's cache.
WRITER = """
import shutil, sys, time
import numpy as np
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile

def rows(letter, image):
    ground = Footprint.from_centre(1.0, 2.0, 0.5, 200, 200)
    return [(Tile(f"{letter}{n}", ground), np.ones(4, np.float16), image) for n in range(10)]

store = Store(sys.argv[1])
store.claim("model", 224)
store.upsert(rows("a", b"first"))
shutil.copy(sys.argv[1], sys.argv[2])
store.upsert(rows("b", b"second"))
store.file.db.execute("PRAGMA cache_size = 1")
with store.file.transaction() as db:
    db.execute("UPDATE details SET image = zeroblob(20000)")
    db.execute("DELETE FROM tiles WHERE number < 15")
    print("in the middle", flush=True)
    time.sleep(60)
"""


def row(tile_id):
    return Tile(tile_id, Footprint.from_centre(1.0, 2.0, 0.5, 200, 200)), np.ones(4, np.float16), b"jpeg"


def ids(path):
    with closing(Store(path)) as store:
        verify(store)
        return {each.tile.id for each in store.load()}


MAGIC = bytes.fromhex("d9d505f920a163d7")
A = {f"a{n}" for n in range(10)}
B = {f"b{n}" for n in range(10)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "town.gallery"


@pytest.fixture
def copy(tmp_path):
    return tmp_path / "copy.gallery"


@pytest.fixture
def killed(path, copy):
    """A gallery whose process was killed in the middle of a write, and a plain copy of its file of before."""
    with subprocess.Popen([sys.executable, "-c", WRITER, path, copy], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in the middle\n"
        process.send_signal(signal.SIGKILL)
    assert journal_of(path).stat().st_size > 0
    return path


def test_a_write_that_was_cut_off_is_undone(killed, tmp_path):
    assert ids(killed) == A | B
    assert sorted(os.listdir(tmp_path)) == ["copy.gallery", "town.gallery"]


def test_a_plain_copy_between_two_writes_is_whole(killed, copy):
    assert ids(copy) == A


@pytest.mark.parametrize("put", [shutil.copyfile, shutil.move], ids=["written over it", "moved over it"])
@pytest.mark.parametrize("what", ["an older copy", "another gallery", "a copy in other use"])
def test_another_file_in_its_place_is_left_as_it_is(killed, copy, put, what, tmp_path, caplog):
    expected = A
    if what != "an older copy":
        if what == "another gallery":
            copy.unlink()
        with closing(Store(copy)) as store:
            store.upsert([row("other")])
        expected = {"other"} | (set() if what == "another gallery" else A)
    put(copy, killed)
    assert ids(killed) == expected
    assert (tmp_path / "town.gallery-journal.foreign").stat().st_size > 0
    assert "is of another file" in caplog.text


def test_a_file_that_is_gone_is_not_written_again_from_its_journal(killed):
    killed.unlink()
    assert ids(killed) == set()


def test_a_write_ahead_log_is_never_a_gallerys_own(path, tmp_path):
    """As galleries had before, and as other programs may leave."""
    with closing(Store(path)) as store:
        store.upsert([row("a")])
    shutil.copyfile(path, tmp_path / "other")
    with closing(sqlite3.connect(tmp_path / "other", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("DELETE FROM tiles")
        shutil.copyfile(tmp_path / "other-wal", tmp_path / "town.gallery-wal")
    assert ids(path) == {"a"}
    assert (tmp_path / "town.gallery-wal.foreign").exists()


def test_a_write_that_had_reached_the_first_page_is_undone(path):
    """The last moment before a write counts: the file is written, its journal not yet cut to nothing."""
    with closing(Store(path)) as store:
        store.upsert([row("a"), row("b")])
        with store.file.transaction() as db:
            db.execute("UPDATE tiles SET id = 'damaged'  || number, generation = 99")
            journal = bytearray(journal_of(path).read_bytes())
        shutil.copyfile(path, path.with_name("late.gallery"))
    sector, page = int.from_bytes(journal[20:24], "big"), int.from_bytes(journal[24:28], "big")
    # SQLite writes both before it touches the file
    journal[:8] = MAGIC
    journal[8:12] = ((len(journal) - sector) // (page + 8)).to_bytes(4, "big")
    path.with_name("late.gallery-journal").write_bytes(journal)
    assert ids(path.with_name("late.gallery")) == {"a", "b"}


def test_an_opening_that_was_cut_off_is_undone(path, caplog):
    """It is a write, too: of another stamp, which the journal's page does not have."""
    opened = path.with_name("opened.gallery")
    with closing(Store(path)) as store:
        store.upsert([row("a"), row("b")])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("BEGIN")
        db.execute(f"PRAGMA user_version = {with_stamp(SCHEMA_VERSION, new_stamp())}")
        journal = bytearray(journal_of(path).read_bytes())
        db.execute("COMMIT")
        shutil.copyfile(path, opened)
    journal[:12] = MAGIC + (1).to_bytes(4, "big")  # SQLite writes this before it touches the file
    journal_of(opened).write_bytes(journal)
    assert ids(opened) == {"a", "b"}
    assert "is of another file" not in caplog.text
    assert not journal_of(opened).with_name("opened.gallery-journal.foreign").exists()


def test_a_gallery_that_was_killed_while_it_was_made_is_made_again(path):
    """The journal of a new file has no pages: to undo is to cut the file to nothing."""
    with closing(Store(path.with_name("new"))) as store:
        start = bytearray(512)
        start[:8] = MAGIC
        start[20:28] = (512).to_bytes(4, "big") + int(store.file.one("PRAGMA page_size")).to_bytes(4, "big")
    half = bytearray(path.with_name("new").read_bytes()[:5000])
    half[60:63] = bytes(3)  # not opened yet
    path.write_bytes(half)
    journal_of(path).write_bytes(start)
    assert ids(path) == set()
    shutil.copyfile(path.with_name("new"), path)
    journal_of(path).write_bytes(start)  # the same journal beside a gallery that was opened before is not its own
    assert ids(path) == set()
    assert journal_of(path).with_name("town.gallery-journal.foreign").exists()


@pytest.fixture
def store(path):
    store = Store(path)
    store.upsert([row("a")])
    yield store
    store.close()


LOSSES = {
    "removed": lambda path, other: path.unlink(),
    "moved away": lambda path, other: path.rename(path.with_name("elsewhere")),
    "replaced": lambda path, other: other.replace(path),
    "written over": lambda path, other: shutil.copyfile(other, path),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_nothing_is_said_to_be_kept_in_a_file_that_lost_its_name(store, path, tmp_path, lose):
    with closing(Store(tmp_path / "other")) as other:
        other.upsert([row("b"), row("c")])
    store.file.check_place()
    lose(path, tmp_path / "other")
    with pytest.raises(GalleryUnusable, match="removed, replaced or written to"):
        store.file.check_place()
    for write in (lambda: store.upsert([row("d")]), lambda: store.delete(["a"]), lambda: store.claim("model", 224)):
        with pytest.raises(GalleryUnusable, match="removed, replaced or written to"):
            write()
    assert store.image("a") == b"jpeg" or path.exists()  # what is open can still be read, unless it was overwritten


def test_a_file_that_is_lost_during_a_write_does_not_acknowledge_it(store, path):
    with pytest.raises(GalleryUnusable, match="removed, replaced"), store.file.transaction():
        path.unlink()


def test_a_file_that_comes_back_goes_on(store, path, tmp_path):
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(GalleryUnusable):
        store.upsert([row("d")])
    (tmp_path / "elsewhere").rename(path)
    store.upsert([row("d")])
    store.close()
    assert ids(path) == {"a", "d"}
    assert sorted(os.listdir(tmp_path)) == ["town.gallery"]


def test_closing_leaves_the_journal_of_another_file_alone(store, path, tmp_path):
    path.unlink()
    journal_of(path).unlink()
    journal_of(path).write_bytes(b"of a file that another process has put here")
    store.close()
    assert journal_of(path).exists()
