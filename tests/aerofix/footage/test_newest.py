"""The newest picture of what does not wait."""

import asyncio
import os
from contextlib import aclosing

import pytest
from PIL import Image

from aerofix.footage.newest import Taken, filling, newest, played
from aerofix.footage.video import Video
from service.errors import SourceUnreadable


def taken(n):
    return Taken(f"{n}.jpg", b"", float(n))


async def test_what_came_meanwhile_is_left_out_but_for_the_last():
    gates = [asyncio.Event() for _ in range(4)]

    async def pictures():
        for n in range(4):
            await gates[n].wait()
            yield taken(n)

    seen = []
    async with aclosing(newest(pictures())) as latest:
        gates[0].set()
        async for picture in latest:
            seen.append(picture.time_s)
            for gate in gates[1:]:  # three come while the first is worked on
                gate.set()
            for _ in range(20):
                await asyncio.sleep(0)
    assert seen == [0, 3]


async def test_what_stops_the_pictures_is_told():
    async def pictures():
        yield taken(1)
        raise SourceUnreadable("the stream has ended.")

    seen = []
    with pytest.raises(SourceUnreadable, match="has ended"):  # noqa: PT012
        async for picture in newest(pictures()):
            seen.append(picture.time_s)
    assert seen == [1]


async def test_a_video_is_played_to_its_end(tmp_path, write_video):
    film = write_video(tmp_path / "film.mp4", [Image.new("RGB", (64, 48))] * 6, rate=30)
    frames = [frame async for frame in played(Video(film, 0.1))]
    assert [frame.time_s - frames[0].time_s for frame in frames] == pytest.approx([0.0, 0.1])
    assert frames[1].name == f"{film}#t=0.100"


async def test_a_folder_is_looked_at_when_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("aerofix.footage.newest.POLL_S", 0.01)
    async with aclosing(filling(tmp_path, {".jpg"})) as photos:
        (tmp_path / "at-once.jpg").write_bytes(b"comes before anybody waits for it")
        first = await asyncio.wait_for(anext(photos), 30)
        assert first.photo == tmp_path / "at-once.jpg"


async def test_a_folder_gives_what_comes_when_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("aerofix.footage.newest.POLL_S", 0.01)
    (tmp_path / "old.jpg").write_bytes(b"old")
    async with aclosing(filling(tmp_path, {".jpg"}, latency_s=2.0)) as photos:
        coming = asyncio.ensure_future(anext(photos))
        await asyncio.sleep(0.05)
        with (tmp_path / "new.JPG").open("wb") as file:
            for _ in range(40):  # grows between any two looks
                file.write(b"part")
                file.flush()
                await asyncio.sleep(0.005)
                if coming.done():
                    break
        (tmp_path / "notes.txt").write_text("no photo")
        first = await asyncio.wait_for(coming, 30)
        assert first.photo == tmp_path / "new.JPG"
        os.utime(tmp_path / "old.jpg")  # not new
        (tmp_path / "later.jpg").write_bytes(b"later")
        os.utime(tmp_path / "later.jpg", (1000, 1000))
        second = await asyncio.wait_for(anext(photos), 30)
        assert (second.photo, second.time_s) == (tmp_path / "later.jpg", 998)
