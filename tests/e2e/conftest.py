"""A service with a tiny model, reached over HTTP, and a made-up map to fill it with."""

import json
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import pytest

from service.app import create_app
from service.geo import offset
from service.settings import Settings

ORIGIN = (24.26, 120.72)
WINDOW_PX = 32  # as the tiny model has it
SIDE_PX, GSD_M = 64, 1.5  # tiles of 96 m


@pytest.fixture
def settings(tmp_path, tiny_model):
    def make(**overrides):
        defaults = {"model": tmp_path / "m.onnx", "gallery": tmp_path / "g.gallery", "device": "cpu", "threads": 1}
        if not defaults["model"].exists():
            tiny_model(defaults["model"])
        return Settings(**defaults | overrides)

    return make


@pytest.fixture
def start(settings):
    """``async with start(**settings) as http``: a running service; ``http.app`` is its application."""

    @asynccontextmanager
    async def run(**overrides):
        app = create_app(settings(**overrides))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://t") as http,
        ):
            http.app = app
            yield http

    return run


@pytest.fixture
def serve(settings):
    """``serve()`` starts ``aerofix serve`` on a free port and gives the process and its base URL."""
    processes = []

    def start(program=("-m", "service.cli.main")):
        chosen = settings()
        command = [sys.executable, *program, "serve", "--port", "0", "--device", "cpu"]
        command += ["--model", str(chosen.model), "--gallery", str(chosen.gallery)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        processes.append(process)
        words = process.stdout.readline().split()
        return process, next(word for word in words if word.startswith("http://"))

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
async def http(start):
    async with start() as client:
        yield client


@pytest.fixture(scope="session")
def place():
    """``place(column)``: the centre of a tile of the made-up map, a row of tiles 200 m apart from west to east."""

    def centre(column):
        lat, lon = offset(*ORIGIN, 200.0 * column, 0.0)
        return float(lat), float(lon)

    return centre


@pytest.fixture(scope="session")
def tile_request(ground, encode_image, place):
    """``tile_request(*columns)``: the multipart form that adds these tiles of the made-up map."""

    def form(*columns, **entry):
        entries, files = [], []
        for column in columns:
            lat, lon = place(column)
            entries.append({"id": f"map/{column}", "lat": lat, "lon": lon, "gsd_m": GSD_M} | entry)
            files.append(("image", (f"{column}.png", encode_image(ground(column, SIDE_PX, SIDE_PX)))))
        return {"files": files, "data": {"tiles": json.dumps(entries)}}

    return form


@pytest.fixture(scope="session")
def photo(ground, encode_image):
    """``photo(column)``: a JPEG that shows the tile of a column."""

    def make(column, **options):
        return encode_image(ground(column, SIDE_PX, SIDE_PX), "JPEG", quality=90, **options)

    return make


@pytest.fixture(scope="session")
def problem_of():
    """``problem_of(response, slug, status)`` checks that an answer is that problem and returns it."""

    def check(response, slug, status):
        body = response.json()
        assert response.headers["content-type"] == "application/problem+json", body
        assert (body["type"], response.status_code, body["status"]) == (f"/problems/{slug}", status, status)
        assert body["instance"] == response.headers["x-request-id"]
        assert body["detail"]
        assert body["title"]
        return body

    return check


@pytest.fixture
def geotiff(tmp_path, ground, write_map):
    """``geotiff(seed, width, height)``: a map on the lattice of windows, as bytes."""

    def make(seed=4, width=128, height=128, **options):
        return write_map(tmp_path / "area.tif", ground(seed, width, height), **options).read_bytes()

    return make


@pytest.fixture
def window(ground, encode_image):
    """``window(row, column, seed)``: a photo that shows just what one window of the map does."""

    def make(row, column, seed=4, width=128, height=128):
        left, top = 16 * column, 16 * row
        return encode_image(ground(seed, width, height).crop((left, top, left + WINDOW_PX, top + WINDOW_PX)))

    return make
