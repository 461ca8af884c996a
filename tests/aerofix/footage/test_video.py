"""Frames of videos, and what they carry."""

import io
import socket
import sys
import threading
import time
from datetime import datetime

import numpy as np
import pytest
from PIL import ExifTags, Image

from aerofix.footage.srt import Telemetry
from aerofix.footage.video import Video, as_photo, beside
from service.errors import DeviceUnavailable, SourceUnreadable
from service.imaging.exif import read_pose


@pytest.fixture
def film(tmp_path, write_video):
    """A video of 20 frames in 2 s, whose brightness says which frame it is."""
    shades = [Image.new("RGB", (64, 48), (5 + 12 * n,) * 3) for n in range(20)]
    return write_video(tmp_path / "film.mp4", shades, rate=10)


def shade(jpeg):
    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


@pytest.mark.parametrize(
    ("every_s", "expected"), [(0.5, [0, 5, 10, 15]), (0.25, [0, 3, 5, 8, 10, 13, 15, 18]), (1e-3, list(range(20)))]
)
def test_frames_come_when_they_are_due(film, every_s, expected):
    frames = list(Video(film, every_s).frames())
    assert [frame.time_s for frame in frames] == pytest.approx([n / 10 for n in expected])
    assert [shade(frame.jpeg) for frame in frames] == pytest.approx([5 + 12 * n for n in expected], abs=4)


def test_a_video_knows_how_many_there_will_be(film):
    assert Video(film, 0.5).count() in (4, 5)  # the last one may lie on the end


def test_what_is_no_video_is_one_sentence(tmp_path):
    (tmp_path / "no.mp4").write_text("no video")
    for path in (tmp_path / "no.mp4", tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(SourceUnreadable, match="cannot be read as a video"):
            list(Video(path).frames())


def test_a_stream_that_is_not_there_is_one_sentence():
    with pytest.raises(SourceUnreadable, match="cannot be read as a video"):
        list(Video("tcp://127.0.0.1:9").frames())


@pytest.fixture
def stream(tmp_path, write_video, monkeypatch):
    """The address of a live stream, which sends itself to the first who comes, a twentieth at a time."""
    monkeypatch.setattr("aerofix.footage.clock.SETTLING_S", 0.3)
    shades = [Image.new("RGB", (320, 240), (5 + 2 * n,) * 3) for n in range(100)]
    data = write_video(tmp_path / "live.ts", shades, rate=25).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send():
            peer, _ = server.accept()
            with peer:
                for at in range(0, len(data), len(data) // 20):
                    peer.sendall(data[at : at + len(data) // 20])
                    time.sleep(0.1)

        sender = threading.Thread(target=send)
        sender.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sender.join()


def test_frames_of_a_live_stream_say_when_they_were_taken(stream):
    frames = list(Video(stream, 0.2).frames())
    assert len(frames) >= 2
    assert frames[0].time_s == 0
    assert frames[-1].taken_s <= time.time()
    first = shade(frames[0].jpeg)
    for frame in frames:  # the picture of the time that is told: 25 frames a second, each 2 brighter
        assert shade(frame.jpeg) == pytest.approx(first + 50 * frame.time_s, abs=6)
        assert frame.taken_s is not None


def test_without_pyav_it_says_what_to_install(monkeypatch, film):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DeviceUnavailable, match=r"aerofix\[video\]"):
        Video(film).count()


def test_a_frame_carries_what_the_drone_wrote():
    taken_at = datetime(2026, 3, 4, 10, 11, 12, 345_000)
    moment = Telemetry(0, 1, taken_at, (-24.26012, -120.71854), 102.2, (-65.8, -60.0, 0.0), 24.0)
    with Image.open(io.BytesIO(as_photo(Image.new("RGB", (1920, 1080)), moment))) as photo:
        pose = read_pose(photo)
        details = photo.getexif().get_ifd(ExifTags.IFD.Exif)
    assert pose.position == pytest.approx((-24.26012, -120.71854), abs=1e-7)
    assert (pose.altitude_m, pose.heading_source, pose.lens_source) == (102.2, "gimbal", "film")
    assert pose.heading_deg == pytest.approx(360 - 65.8)
    assert pose.attitude.pitch_deg == pytest.approx(-60.0)
    assert pose.hfov_deg == pytest.approx(71.6, abs=0.1)  # 24 mm on a 4:3 sensor's full width
    assert details[ExifTags.Base.DateTimeOriginal] == "2026:03:04 10:11:12"
    assert details[ExifTags.Base.SubsecTimeOriginal] == "345"


def test_a_frame_carries_nothing_that_is_not_known():
    with Image.open(io.BytesIO(as_photo(Image.new("RGB", (64, 48)), Telemetry(0, 1)))) as photo:
        assert read_pose(photo) == read_pose(Image.new("RGB", (64, 48)))


def test_a_frame_gets_the_telemetry_of_its_time(film):
    telemetry = [Telemetry(n, n + 1, height_m=50.0 + n) for n in range(2)]
    heights = [read_pose(Image.open(io.BytesIO(each.jpeg))).altitude_m for each in Video(film, 0.5, telemetry).frames()]
    assert heights == [50.0, 50.0, 51.0, 51.0]


def test_the_file_beside_a_video_is_found(film):
    assert beside(film) is None
    film.with_suffix(".SRT").touch()
    assert beside(film) == film.with_suffix(".SRT")
