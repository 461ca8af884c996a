"""The progress of an import and what it counts are written together or not at all."""

from contextlib import closing

import numpy as np
import pytest

from service.errors import SourceUnreadable
from service.ground.maps import NewMap
from service.ground.store.imports import MAX_TROUBLES, ImportStopped, Step, Trouble, new_import_id
from service.ground.store.store import Store
from service.ground.windows import pack

ID = "0123456789abcdef"


TOWN = NewMap("town", "town.tif", (0.0, 0.0, 0.1, 0.1), 0.3, None, (17,), True, 10, 17)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "g")
    store.imports.create("map.tif", {"overlap": 0.5}, 10, ID)
    store.maps.create(TOWN, True, ID)
    yield store
    store.close()


def put(store, columns, step):
    """Store windows of these columns."""
    ids = pack(1, 17, np.full(len(columns), 7), np.array(columns, np.int64))
    store.maps.put_windows(1, ids, np.ones((len(columns), 4), np.float16), {}, step)


def counts(store):
    job = store.imports.get(ID)
    return job.done, job.added, job.updated, job.failed, job.skipped


def test_an_import_from_beginning_to_end(store):
    job = store.imports.get(ID)
    assert (job.state, job.name, job.options, job.total) == ("queued", "map.tif", {"overlap": 0.5}, 10)
    store.imports.begin(ID, 10)
    put(store, [1, 2], Step(ID, 4, skipped=1, troubles=[Trouble("c", "invalid-footprint", "no")]))
    put(store, [2], Step(ID, 5))
    put(store, [], Step(ID, 10, skipped=5, flat=2))
    assert counts(store) == (10, 2, 2 - 1, 1, 6)
    assert store.imports.get(ID).flat == 2
    assert store.generation == 3  # the map, and two writes
    assert store.imports.finish(ID, "done")
    assert not store.imports.finish(ID, "cancelled")
    assert store.imports.get(ID).state == "done"
    assert store.imports.get(ID).troubles == [Trouble("c", "invalid-footprint", "no")]
    assert store.imports.live() == []


def test_tiles_of_a_cancelled_import_are_not_kept(store):
    store.imports.begin(ID, 10)
    store.imports.finish(ID, "cancelled")
    with pytest.raises(ImportStopped):
        put(store, [1], Step(ID, 4))
    with pytest.raises(ImportStopped):
        store.maps.put_tiles({1: b"tile"}, Step(ID, 4))
    assert list(store.maps.windows(1)) == []
    assert store.generation == 1
    assert counts(store) == (0, 0, 0, 0, 0)
    with pytest.raises(ImportStopped):
        store.imports.begin(ID, 10)


def test_a_source_that_changed_is_begun_again(store):
    store.imports.begin(ID, 10)
    put(store, [1], Step(ID, 4, skipped=3))
    store.imports.begin(ID, 10)
    assert counts(store) == (4, 1, 0, 0, 3)
    store.imports.begin(ID, 12)
    assert counts(store) == (0, 0, 0, 0, 0)
    assert store.imports.get(ID).total == 12


def test_imports_go_on_in_their_order_after_reopening(store, tmp_path):
    other = new_import_id()
    store.imports.create("second", {}, 1, other)
    store.imports.begin(ID, 10)
    store.close()
    with closing(Store(tmp_path / "g")) as again:
        assert [(job.id, job.state) for job in again.imports.live()] == [(ID, "running"), (other, "queued")]
        assert [job.id for job in again.imports.newest(1)] == [other]
        assert again.imports.get("unknown") is None


def test_only_the_first_troubles_are_kept_and_all_are_counted(store):
    store.imports.begin(ID, 10)
    for step in range(3):
        put(store, [], Step(ID, step, troubles=[Trouble(f"{step}/{n}", "X", "y") for n in range(15)]))
    job = store.imports.get(ID)
    assert (job.failed, len(job.troubles), job.troubles[0].item) == (45, MAX_TROUBLES, "0/0")
    store.imports.finish(ID, "failed", Trouble(None, "source-unreadable", "gone"))
    assert store.imports.get(ID).troubles[0] == Trouble(None, "source-unreadable", "gone")


def test_a_source_that_ends_the_process_again_and_again_is_given_up(store):
    store.imports.start(ID)
    store.imports.begin(ID, 10)
    put(store, [1], Step(ID, 4))
    for _ in range(2):  # nothing was noted after these two: the process was gone
        store.imports.start(ID)
        store.imports.begin(ID, 10)
    with pytest.raises(SourceUnreadable, match="ended the service 2 times at the same place, after 4 of 10 pieces"):
        store.imports.start(ID)


def test_runs_that_make_progress_or_come_to_an_end_do_not_count(store):
    for done in range(1, 5):
        store.imports.start(ID)
        store.imports.begin(ID, 10)
        put(store, [done], Step(ID, done))
    for _ in range(4):
        store.imports.start(ID)
        store.imports.outlived(ID)


def test_warnings_are_kept_once(store):
    store.imports.warn(ID, ["no date", "coarse"])
    store.imports.warn(ID, ["coarse", "flat"])
    assert store.imports.get(ID).warnings == ["no date", "coarse", "flat"]
