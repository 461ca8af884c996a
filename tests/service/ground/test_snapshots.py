"""Copies are made one at a time and kept until somebody removes them; a folder may change while it is looked at."""

import asyncio
import os
import threading
from contextlib import suppress

import pytest

from service.errors import NotReady, Overloaded, SnapshotNotFound, SnapshotsFull, StorageFull
from service.ground.snapshots import Snapshots

LONG = 60  # seconds; no test waits that long


class Writer:
    """Writes copies of four bytes, when it may."""

    def __init__(self):
        self.gate, self.begun, self.threads, self.error = threading.Event(), threading.Event(), set(), None
        self.gate.set()

    def __call__(self, path, is_stopped):
        self.begun.set()
        self.threads.add(threading.current_thread().name)
        while not self.gate.wait(0.01):
            if is_stopped():
                raise NotReady("stopped")
        if self.error is not None:
            raise self.error
        path.write_bytes(b"copy")


@pytest.fixture
def write():
    return Writer()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "copies"


@pytest.fixture
def snapshots(folder, write):
    snapshots = Snapshots(folder, write, limit=3)
    yield snapshots
    snapshots.close()


async def begin(snapshots, write):
    """A copy that is being made."""
    write.gate.clear()
    write.begun.clear()
    making = asyncio.create_task(snapshots.create(1))
    await asyncio.to_thread(write.begun.wait, LONG)
    return making


async def test_one_is_made_at_a_time_and_keeps_no_thread_of_others(snapshots, write):
    making = await begin(snapshots, write)
    for _ in range(100):
        with pytest.raises(Overloaded) as refused:
            await snapshots.create(1)
        assert refused.value.numbers["retry_after_s"] > 0
    pool = os.cpu_count() + 4  # the most threads that asyncio shares
    assert await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(int, 7) for _ in range(pool))), LONG)
    write.gate.set()
    assert (await making).bytes == 4
    await snapshots.create(2)
    assert write.threads == {"snapshot_0"}


async def test_a_copy_goes_on_when_whoever_asked_leaves(snapshots, write):
    making = await begin(snapshots, write)
    making.cancel()
    await asyncio.wait([making])
    with pytest.raises(Overloaded):
        await snapshots.create(1)
    write.gate.set()
    async with asyncio.timeout(LONG):
        while not snapshots.newest():  # noqa: ASYNC110 - the folder has no event
            await asyncio.sleep(0.01)


async def test_no_more_are_kept_than_may_be_and_none_is_removed_in_silence(snapshots, folder):
    made = [await snapshots.create(n) for n in range(3)]
    with pytest.raises(SnapshotsFull, match=f"3 snapshots.*oldest is {made[0].name}.*AEROFIX_MAX_SNAPSHOTS"):
        await snapshots.create(4)
    assert [each.name for each in snapshots.newest()] == [each.name for each in reversed(made)]
    snapshots.delete(made[1].name)
    await snapshots.create(5)
    assert len(os.listdir(folder)) == 3


async def test_what_fails_is_told_and_leaves_the_way_free(snapshots, write):
    write.error = StorageFull("full")
    with pytest.raises(StorageFull):
        await snapshots.create(1)
    write.error = None
    assert (await snapshots.create(1)).bytes == 4


async def test_closing_gives_up_the_copy_that_is_being_made(snapshots, write):
    making = await begin(snapshots, write)
    snapshots.close()
    with pytest.raises(NotReady):
        await making


async def test_a_list_leaves_out_what_is_removed_meanwhile(snapshots, monkeypatch):
    names = [(await snapshots.create(n)).name for n in range(3)]
    real = os.stat

    def stat(path, **options):  # the second one goes between the list of names and the look at it
        if os.fspath(path).endswith(names[1]):
            raise FileNotFoundError(path)
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert [each.name for each in snapshots.newest()] == [names[2], names[0]]
    with pytest.raises(SnapshotNotFound):
        snapshots.find(names[1])


async def test_lists_and_deletions_do_not_disturb_each_other(snapshots):
    """All at once, over and over: a list names what there is, and a deletion that came too late says so."""
    done = threading.Event()
    failures = []

    def work(what):
        while not done.is_set():
            try:
                what()
            except SnapshotNotFound:
                pass
            except BaseException as error:
                failures.append(error)

    def delete():
        for each in snapshots.newest():
            snapshots.delete(each.name)

    threads = [threading.Thread(target=work, args=(what,)) for what in (snapshots.newest, delete, delete)]
    for thread in threads:
        thread.start()
    for n in range(50):
        with suppress(SnapshotNotFound, SnapshotsFull):
            await snapshots.create(n)
    done.set()
    for thread in threads:
        thread.join(LONG)
    assert failures == []


@pytest.mark.parametrize("name", ["x.gallery", "../copies.gallery", "", ".gallery", "a/b.gallery", "x.gallery.part"])
def test_other_names_are_not_there(snapshots, folder, name):
    folder.mkdir()
    (folder.parent / "copies.gallery").touch()
    (folder / "x.gallery.part").touch()
    for act in (snapshots.find, snapshots.delete):
        with pytest.raises(SnapshotNotFound):
            act(name)


async def test_a_folder_of_the_name_of_a_copy_is_none(snapshots, folder):
    (folder / "x.gallery").mkdir(parents=True)
    with pytest.raises(SnapshotNotFound):
        snapshots.delete("x.gallery")
    assert snapshots.newest() == []


async def test_leftovers_of_a_killed_process_are_removed(snapshots, folder):
    folder.mkdir()
    for name in ("old.gallery.part", "old.gallery.part-journal"):
        (folder / name).touch()
    made = await snapshots.create(1)
    assert os.listdir(folder) == [made.name]
