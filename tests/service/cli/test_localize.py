"""``aerofix localize`` on folders, many photos and videos: what it writes, and going on after a stop."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from service.cli.main import app

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture(scope="module")
def world(ground):
    return ground(4, 256, 256)


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_model, write_map, world):
    """A folder with a model, and a gallery of 256 m of made-up ground."""
    folder = tmp_path_factory.mktemp("filled")
    local = ["--gallery", str(folder / "g.gallery"), "--model", str(tiny_model(folder / "m.onnx")), "--device", "cpu"]
    added = CliRunner().invoke(app, ["gallery", "add", str(write_map(folder / "town.tif", world)), *local])
    assert added.exit_code == 0, added.output
    return folder


@pytest.fixture
def run(tmp_path, filled):
    """``run(*arguments)``: ``aerofix localize`` on a copy of that gallery."""
    gallery = shutil.copy(filled / "g.gallery", tmp_path)
    local = ["--gallery", gallery, "--model", str(filled / "m.onnx"), "--device", "cpu"]

    def invoke(*arguments):
        return CliRunner().invoke(app, ["localize", *map(str, arguments), *local])

    invoke.local = local
    return invoke


@pytest.fixture
def folder(tmp_path, world):
    """Five photos of the ground, the last ones in a folder within."""
    for n, name in enumerate(["a.png", "b.JPG", "c.webp", "in/d.png", "in/e.png"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        world.crop((16 * n, 32, 16 * n + 32, 64)).save(path)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return Path("photos")


@pytest.fixture
def film(tmp_path, world, write_video):
    """A flight eastwards over the ground: 12 frames, four a second, each 8 pixels further, with what a drone writes."""
    frames = [world.crop((64 + 8 * n, 96, 96 + 8 * n, 128)) for n in range(12)]
    cues = (
        f"{n + 1}\n00:00:0{n},000 --> 00:00:0{n},500\n[focal_len: 24.00] [rel_alt: {50 + n}.0 abs_alt: 0.0]\n"
        for n in range(3)
    )
    (tmp_path / "film.SRT").write_text("\n".join(cues))
    return write_video(tmp_path / "film.mp4", frames, rate=4)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_is_answered_in_order(run, folder):
    result = run(folder, "--json")
    assert result.exit_code in (0, 3), result.output
    names = [f"photos/{name}" for name in ("a.png", "b.JPG", "c.webp", "in/d.png", "in/e.png")]
    assert [line["file"] for line in lines(result.stdout)] == names
    assert lines(result.stdout) == [json.loads(line) for line in result.stdout.splitlines()]
    one_by_one = lines(run(folder, "--json", "--jobs", 1).stdout)
    for several, alone in zip(lines(result.stdout), one_by_one, strict=True):
        assert several["position"] == alone["position"]


def test_a_folder_without_photos_says_so(run, tmp_path):
    (tmp_path / "empty").mkdir()
    result = run("empty")
    assert result.exit_code == 1
    assert "has no photos" in result.stderr


@pytest.mark.parametrize("ending", ["jsonl", "csv", "geojson", "kml"])
def test_a_file_that_exists_is_gone_on_with(run, folder, ending):
    some = sorted(folder.glob("*.*"))[:2]
    first_code = run(*some, "--out", f"out.{ending}").exit_code
    assert first_code in (0, 3)
    first = Path(f"out.{ending}").read_text()
    result = run(folder, "--out", f"out.{ending}")
    assert "2 from earlier runs" in result.stderr
    whole = Path(f"out.{ending}").read_text()
    assert whole != first
    again = run(folder, "--out", f"out.{ending}")
    assert (again.exit_code, again.stdout) == (result.exit_code, "")
    assert "nothing new; 5 from earlier runs: " in again.stderr
    assert Path(f"out.{ending}").read_text() == whole


@pytest.mark.parametrize("ending", ["jsonl", "csv", "geojson", "kml"])
def test_what_earlier_runs_failed_at_is_not_forgotten(run, folder, ending):
    (folder / "b.JPG").write_bytes((folder / "b.JPG").read_bytes()[:200])
    first, second = (run(folder, "--out", f"out.{ending}") for _ in range(2))
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "nothing new; 5 from earlier runs" in second.stderr
    assert "1 error" in second.stderr


def test_a_file_that_cannot_be_read_is_asked_about_again(run, folder):
    whole = (folder / "b.JPG").read_bytes()
    (folder / "b.JPG").unlink()
    missing = run(*(folder / name for name in ("a.png", "b.JPG")), "--out", "out.csv")
    assert missing.exit_code == 1
    assert "b.JPG: the file cannot be read" in missing.stderr
    (folder / "b.JPG").write_bytes(whole)
    there = run(*(folder / name for name in ("a.png", "b.JPG")), "--out", "out.csv")
    assert "1 from earlier runs" in there.stderr
    assert "photos/b.JPG" in Path("out.csv").read_text()
    assert there.exit_code in (0, 3)


def test_the_format_goes_before_the_ending(run, folder):
    run(folder, "--out", "out.txt", "--format", "csv")
    assert Path("out.txt").read_text().startswith("file,time_s,status,lat,lon,accuracy_m")


@pytest.mark.parametrize(
    "arguments",
    [["--out", "out.txt"], ["--json", "--csv"], ["--format", "shp"], ["--jobs", "0"], ["--srt", "x.srt"]],
)
def test_usage_errors_end_with_2(run, folder, arguments):
    assert run(folder, *arguments).exit_code == 2


def test_other_peoples_files_are_left_alone(run, folder):
    Path("notes.csv").write_text("mine\n")
    result = run(folder, "--out", "notes.csv")
    assert result.exit_code == 1
    assert "name another file" in result.stderr
    assert Path("notes.csv").read_text() == "mine\n"


def test_what_may_be_over_when_it_is_asked_again_is_not_written(folder, monkeypatch):
    asked = []

    def answer(request):
        name = request.content.split(b'filename="')[1].split(b'"')[0].decode()
        asked.append(name)
        slug, status = {"b.JPG": ("deadline-exceeded", 504), "c.webp": ("image-truncated", 422)}.get(
            name, ("image-undecodable", 422)
        )
        problem = {"type": f"/problems/{slug}", "title": "T", "status": status, "detail": f"{slug} it is."}
        return httpx.Response(status, json=problem)

    real = httpx.AsyncClient
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **kwargs: real(**kwargs | {"transport": httpx.MockTransport(answer)})
    )

    def run():
        return CliRunner().invoke(app, ["localize", str(folder), "--out", "out.jsonl"])

    first = run()
    assert first.exit_code == 1
    assert "b.JPG: deadline-exceeded it is." in first.stderr
    assert "not answered in time: 1; ask again, with fewer photos at a time (--jobs 1)" in first.stderr
    assert [line["file"] for line in lines(Path("out.jsonl").read_text())] == [
        "photos/a.png",
        "photos/c.webp",
        "photos/in/d.png",
        "photos/in/e.png",
    ]
    asked.clear()
    assert run().exit_code == 1
    assert asked == ["b.JPG"]


def test_what_no_photo_can_do_about_is_said_once(run, folder):
    for hints in (["--altitude", "-5"], ["--map", "nowhere"]):
        result = run(folder, "--json", *hints)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1, result.stderr


def test_all_hints_reach_the_service(run, folder):
    given = ["--heading", 10, "--pitch", -80, "--roll", 1, "--altitude", 60, "--hfov", 70, "--ground-elevation", 3]
    given += ["--effort", "fast", "--map", "town", "--no-exif", "--prior", "10,20,500", "--no-refine"]
    (line,) = lines(run(folder / "a.png", "--json", *given).stdout)
    assert line["searched_tiles"] == 0
    used = {"prior", "heading_deg", "pitch_deg", "roll_deg", "altitude_m", "hfov_deg"}
    assert used <= set(line["query"]["used"])


def test_a_video_is_a_flight(run, film):
    result = run(film.name, "--json", "--every", 0.5, "--effort", "fast")
    assert result.exit_code in (0, 3), result.output
    steps = lines(result.stdout)
    assert [step["file"] for step in steps] == [f"film.mp4#t={n / 2:.3f}" for n in range(6)]
    assert [step["time_s"] for step in steps] == [n / 2 for n in range(6)]
    assert [step["timestamp_s"] for step in steps] == [n / 2 for n in range(6)]
    assert {step["use"] for step in steps} <= {"fused", "gated", "lost"}
    heights = [step["photo"]["query"]["values"]["altitude_m"] for step in steps]
    assert heights == [50, 50, 51, 51, 52, 52]
    assert all(step["photo"]["query"]["readings"]["altitude_m"] for step in steps)


def test_a_video_is_gone_on_with(run, film):
    run(film.name, "--out", "out.csv", "--every", 1, "--effort", "fast")
    result = run(film.name, "--out", "out.csv", "--every", 0.5, "--effort", "fast")
    assert "3 from earlier runs" in result.stderr
    rows = Path("out.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == [f"film.mp4#t={n / 2:.3f}" for n in range(6)]


def test_frames_can_be_single_photos(run, film):
    steps = lines(run(film.name, "--json", "--no-track", "--no-exif", "--every", 1).stdout)
    assert ["track_id" in step for step in steps] == [False] * 3
    assert ["altitude_m" in step["query"]["values"] for step in steps] == [False] * 3


def test_a_subtitle_file_without_telemetry_is_named(run, film):
    Path("film.SRT").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello.\n")
    result = run(film.name)
    assert result.exit_code == 1
    assert "film.SRT has no telemetry" in result.stderr


SLOW = """
import sys
from aerofix.async_client import AsyncClient
from service.cli.main import main
localize, asked = AsyncClient.localize, []
async def once(self, photo, **options):
    asked.append(photo)
    if len(asked) > 3:
        import asyncio
        print("waits", file=sys.stderr, flush=True)
        await asyncio.sleep(600)
    return await localize(self, photo, **options)
AsyncClient.localize = once
main()
"""


@pytest.mark.parametrize("ending", ["jsonl", "kml"])
def test_ctrl_c_keeps_what_is_done(run, folder, ending):
    command = [sys.executable, "-c", SLOW, "localize", str(folder), "--jobs", "1", "--out", f"out.{ending}"]
    with subprocess.Popen([*command, *run.local], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr.readline() == "waits\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    result = run(folder, "--out", f"out.{ending}")
    assert "3 from earlier runs" in result.stderr
