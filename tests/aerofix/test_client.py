"""``Client`` and ``Localizer`` as programs use them, and that nothing of the service is missing from them."""

import inspect
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from aerofix import (
    AerofixError,
    AsyncClient,
    Client,
    ImportOptions,
    Localizer,
    PhotoOptions,
    ServiceError,
    TrackOptions,
)
from aerofix.options import form_of
from service.routes.imports import ImportForm
from service.routes.localize import LocalizeForm
from service.routes.tracks import TrackForm

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("AEROFIX_URL", "AEROFIX_KEY", "AEROFIX_GALLERY", "AEROFIX_MODEL", "AEROFIX_DEVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def localizer(tmp_path, tiny_model):
    with Localizer(tmp_path / "g.gallery", tiny_model(tmp_path / "m.onnx"), "cpu", create=True) as opened:
        yield opened


@pytest.fixture
def world(ground):
    return ground(4, 256, 256)


@pytest.fixture
def town(tmp_path, world, write_map):
    return write_map(tmp_path / "town.tif", world)


@pytest.fixture
def photo(world, encode_image):
    """A photo that shows just what one window of the map does, as bytes."""
    return encode_image(world.crop((64, 96, 96, 128)))


def test_a_map_goes_in_and_a_position_comes_out(localizer, town, photo, tmp_path):
    states = []
    done = localizer.add_map(town, watch=states.append, map="the town")
    assert (done.state, done.map, done.failed) == ("done", "the town", 0)
    assert states[-1] == done
    (found,) = localizer.maps().maps
    assert found.windows == done.added == localizer.gallery().count
    answer = localizer.localize(photo, heading_deg=0, use_exif=False, top_k=2, maps=["the town"])
    assert answer.status == "located"
    assert answer.query.used == {"heading_deg": "form"}
    assert len(answer.candidates) == 2
    west, south, east, north = found.bounds
    assert south < answer.position.lat < north
    assert west < answer.position.lon < east
    (tmp_path / "photo.png").write_bytes(photo)
    assert localizer.localize(tmp_path / "photo.png", use_exif=False).position == localizer.localize(photo).position
    assert localizer.localize(photo, prior=(-10.5, 20, 500)).searched_tiles == 0
    assert localizer.delete_map("the town").count == 0


def test_a_flight_is_followed(localizer, town, photo):
    localizer.add_map(town)
    track = localizer.open_track(max_speed_m_s=20)
    assert track.options.max_speed_m_s == 20
    step = localizer.track_photo(track.id, photo, "2026-06-14T10:12:00Z")
    assert (step.use, step.photo.status) == ("fused", "located")
    assert localizer.track(track.id).uses.fused == 1
    assert [each.id for each in localizer.tracks().tracks] == [track.id]
    localizer.delete_track(track.id)
    with pytest.raises(ServiceError) as caught:
        localizer.track(track.id)
    assert caught.value.kind == "track-not-found"


def test_a_copy_is_taken(localizer, town, tmp_path):
    localizer.add_map(town)
    localizer.snapshot(tmp_path / "copy.gallery")
    assert (tmp_path / "copy.gallery").stat().st_size > 0


def test_what_goes_wrong_names_the_fix(localizer, tmp_path):
    with pytest.raises(AerofixError, match="there is no file"):
        localizer.add_map(tmp_path / "absent.tif")
    with pytest.raises(AerofixError, match="cannot be read"):
        localizer.localize(tmp_path / "absent.jpg")
    with pytest.raises(ServiceError, match="not a JPEG, PNG, WebP or TIFF") as caught:
        localizer.localize(b"no photo")
    assert (caught.value.kind, caught.value.problem.status) == ("unsupported-media-type", 415)
    with pytest.raises(ServiceError, match="effort"):
        localizer.localize(b"no photo", effort="heroic")


def test_no_gallery_is_made_by_asking_it(tmp_path):
    with pytest.raises(AerofixError, match="create=True"):
        Localizer(tmp_path / "absent.gallery")
    assert not (tmp_path / "absent.gallery").exists()


def test_bad_arguments_name_themselves(tmp_path, tiny_model):
    with pytest.raises(AerofixError, match="device"):
        Localizer(tmp_path / "g", tiny_model(tmp_path / "m.onnx"), "tpu", create=True)
    with pytest.raises(AerofixError, match="there is no model file"):
        Localizer(tmp_path / "g", tmp_path / "absent.onnx", create=True)


def test_no_service_is_one_sentence():
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="no service answers") as caught:
        client.gallery()
    assert (caught.value.problem, caught.value.kind) == (None, None)


@pytest.mark.parametrize("body", ["<html>", "[]", '{"count": "many"}'])
def test_another_server_is_recognised(monkeypatch, body):
    answer = httpx.MockTransport(lambda request: httpx.Response(200, text=body))
    real = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **kwargs: real(**kwargs | {"transport": answer}))
    with Client() as client, pytest.raises(ServiceError, match="not an aerofix service"):
        client.gallery()


def test_threads_share_a_client(localizer, town, photo):
    localizer.add_map(town)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(localizer.localize, [photo] * 8))
    assert len({(answer.position.lat, answer.position.lon) for answer in answers}) == 1


@pytest.mark.parametrize("program", ["print(opened().gallery().count)", "kept = opened(); print(kept.gallery().count)"])
def test_who_forgets_to_close_it_can_leave(tmp_path, tiny_model, program):
    model = tiny_model(tmp_path / "m.onnx")
    made = f"from aerofix import Localizer\nopened = lambda: Localizer('g', {str(model)!r}, 'cpu', create=True)\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", made + program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_it_can_be_closed_twice(localizer):
    localizer.close()
    localizer.close()


def methods(kind):
    return {name: each for name, each in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_both_clients_have_the_same_methods():
    waiting, other = methods(Client), methods(AsyncClient)
    assert set(waiting) == set(other)
    for name, method in waiting.items():
        assert inspect.signature(method) == inspect.signature(other[name]), name


def test_all_that_the_service_takes_can_be_said():
    prior = {"prior_lat", "prior_lon", "prior_radius_m"}
    assert set(PhotoOptions.__annotations__) - {"prior"} == {field.name for field in fields(LocalizeForm)} - prior
    assert set(ImportOptions.__annotations__) == set(ImportForm.model_fields)
    assert set(TrackOptions.__annotations__) == {field.name for field in fields(TrackForm)}


def test_options_are_written_as_forms_have_them():
    form = form_of({"prior": (1, 2.5, 300), "refine": False, "maps": ["a", "b"], "top_k": 3, "roll_deg": None})
    expected = {"prior_lat": "1", "prior_lon": "2.5", "prior_radius_m": "300"}
    assert form == expected | {"refine": "false", "maps": ["a", "b"], "top_k": "3"}
