import asyncio

import pytest

from service.errors import Overloaded, TrackNotFound
from service.tracking.store import MAX_WAITING, TrackStore
from service.tracking.track import Options


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_tracks_have_ids_of_their_own(clock):
    store = TrackStore(100, 50, clock)
    ids = {store.open(Options()).id for _ in range(100)}
    assert len(ids) == 100
    assert all(len(track_id) >= 16 for track_id in ids)


def test_a_track_expires_without_photos(clock):
    store = TrackStore(2, 1, clock)
    opened = store.open(Options(expiry_s=60))
    clock.now = 59
    assert store.get(opened.id) is opened
    assert store.expires_in_s(opened) == 1
    clock.now = 60
    with pytest.raises(TrackNotFound):
        store.get(opened.id)


async def test_a_photo_prolongs_a_track(clock):
    store = TrackStore(2, 1, clock)
    opened = store.open(Options(expiry_s=60))
    clock.now = 59
    async with store.turn(opened.id):
        clock.now = 100  # under way: it does not expire
        store.get(opened.id)
    clock.now = 159
    assert store.get(opened.id) is opened


def test_their_number_is_bounded_and_expired_ones_make_room(clock):
    store = TrackStore(2, 1, clock)
    store.open(Options(expiry_s=60))
    clock.now = 20
    store.open(Options(expiry_s=60))
    with pytest.raises(Overloaded) as caught:
        store.open(Options())
    assert caught.value.numbers["retry_after_s"] == 40
    clock.now = 60
    store.open(Options())
    assert len(store) == 2


def test_an_owner_has_a_share_and_no_more(clock):
    store = TrackStore(3, 2, clock)
    for _ in range(2):
        store.open(Options(expiry_s=60), "ann")
    with pytest.raises(Overloaded, match="AEROFIX_MAX_TRACKS_PER_KEY") as caught:
        store.open(Options(), "ann")
    assert (caught.value.numbers["limit"], caught.value.numbers["retry_after_s"]) == (2, 60)
    store.open(Options(), "bob")
    clock.now = 60
    store.open(Options(), "ann")


async def test_a_track_is_there_for_its_owner_only(clock):
    store = TrackStore(4, 4, clock)
    opened, other = store.open(Options(), "ann"), store.open(Options(), "bob")
    assert (store.of("ann"), store.of("bob"), store.of("")) == ([opened], [other], [])
    for call in (store.get, store.delete):
        for stranger in ("bob", ""):
            with pytest.raises(TrackNotFound):
                call(opened.id, stranger)
    with pytest.raises(TrackNotFound):
        async with store.turn(opened.id, "bob"):
            pass
    store.delete(opened.id, "ann")
    assert store.of("ann") == []


def test_a_deleted_track_is_gone(clock):
    store = TrackStore(2, 1, clock)
    opened = store.open(Options())
    store.delete(opened.id)
    for call in (store.get, store.delete):
        with pytest.raises(TrackNotFound):
            call(opened.id)
    with pytest.raises(TrackNotFound):
        store.get("no-such-track")


async def test_one_tracks_photos_come_one_after_the_other_and_others_do_not_wait(clock):
    store = TrackStore(2, 1, clock)
    first, second = store.open(Options()), store.open(Options())
    log = []

    async def photo(opened, name):
        async with store.turn(opened.id):
            log.append(f"{name} in")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            log.append(f"{name} out")

    await asyncio.gather(photo(first, "a"), photo(first, "b"), photo(second, "c"))
    assert log.index("a out") < log.index("b in")
    assert log.index("c in") < log.index("a out")


async def test_a_flood_of_photos_is_refused(clock):
    store = TrackStore(2, 1, clock)
    opened = store.open(Options())

    async def photo():
        async with store.turn(opened.id):
            await asyncio.sleep(0)

    results = await asyncio.gather(*(photo() for _ in range(MAX_WAITING + 5)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) == 4  # one under way and MAX_WAITING that wait
    assert opened.busy == 0


async def test_a_failing_photo_gives_the_turn_on(clock):
    store = TrackStore(2, 1, clock)
    opened = store.open(Options())
    with pytest.raises(ZeroDivisionError):
        async with store.turn(opened.id):
            raise ZeroDivisionError
    async with store.turn(opened.id) as track:
        assert track is opened.track
