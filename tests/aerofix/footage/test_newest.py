"""The newest picture of what does not wait."""

import asyncio
import os
from contextlib import aclosing, contextmanager

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


async def test_a_photo_that_is_removed_while_the_folder_is_looked_at_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("aerofix.footage.newest.POLL_S", 0.01)
    real = os.scandir

    class Removed:
        """An entry whose file goes after it was listed."""

        def __init__(self, entry):
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def is_file(self):
            there = self._entry.is_file()
            if self.name == "gone.jpg":
                os.unlink(self.path)
            return there

        def stat(self):
            return os.stat(self.path)

    @contextmanager
    def scandir(path):
        with real(path) as entries:
            yield [Removed(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", scandir)
    async with aclosing(filling(tmp_path, {".jpg"})) as photos:
        (tmp_path / "gone.jpg").write_bytes(b"removed between two system calls")
        (tmp_path / "here.jpg").write_bytes(b"stays")
        first = await asyncio.wait_for(anext(photos), 30)
        assert first.photo == tmp_path / "here.jpg"


async def test_a_folder_that_goes_away_is_told_once_and_looked_at_when_it_is_back(tmp_path, monkeypatch):
    monkeypatch.setattr("aerofix.footage.newest.POLL_S", 0.01)
    folder, told = tmp_path / "card", []
    folder.mkdir()
    async with aclosing(filling(folder, {".jpg"}, on_trouble=told.append)) as photos:
        coming = asyncio.ensure_future(anext(photos))
        folder.rename(tmp_path / "away")
        await asyncio.sleep(0.1)
        assert not coming.done()
        (tmp_path / "away").rename(folder)
        (folder / "new.jpg").write_bytes(b"new")
        assert (await asyncio.wait_for(coming, 30)).photo == folder / "new.jpg"
    assert len(told) == 1
    assert "cannot be read" in told[0]


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(SourceUnreadable, match=r"gone cannot be read"):
        filling(tmp_path / "gone", {".jpg"})


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
