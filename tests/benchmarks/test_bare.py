"""The bare loops answer as the service does, with the service's own steps."""

import asyncio
import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from sending import finished, send

from service.app import create_app
from service.settings import Settings

spec = importlib.util.spec_from_file_location("bare", Path(__file__).parents[2] / "benchmarks" / "bare.py")
bare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bare)


@pytest.fixture(params=[1, 4], ids=["any turn", "four turns"])
def settings(request, tiny_model, calibration_json, tmp_path):
    """Of a service whose model's descriptors know any turn, or have to be made for four."""
    local = {"min_inliers": 4, "inlier_weight": 0.05, "turns": request.param}
    calibration = {"calibration": json.dumps(calibration_json | {"local": local})}
    model = tiny_model(tmp_path / "m.onnx", local=True, metadata=calibration)
    return Settings(gallery=tmp_path / "g.gallery", model=model, device="cpu")


@pytest.fixture
def photos(ground, encode_image):
    """Photos of the map and of elsewhere, which take all their looks."""
    seen = [ground(0, 128, 96).crop((left, 32, left + 32, 64)) for left in (16, 48)]
    return [encode_image(image.resize((96, 96))) for image in (*seen, ground(7, 96, 96))]


async def serve(settings, town, photos):
    """What a service in this process answers over a map, which stays in the gallery."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://aerofix") as http,
    ):
        assert (await finished(http, await send(http, town.read_bytes(), "town.tif")))["state"] == "done"
        return [(await http.post("/localize", files={"image": ("p.png", photo)})).json() for photo in photos]


def rounded(lat, lon):
    return round(lat, 6), round(lon, 6)


def told(answer):
    """What an answer says, of what the service says too."""
    position = answer.position and rounded(answer.position.lat, answer.position.lon)
    return answer.verdict.status, position, [hit.tile.id for hit in answer.hits], answer.looks


def told_over_http(answer):
    """The same of the service's."""
    position = answer["position"] and rounded(answer["position"]["lat"], answer["position"]["lon"])
    ids = [candidate["tile_id"] for candidate in answer["candidates"]]
    return answer["status"], position, ids, answer["query"]["looks"]


def test_loops_answer_as_the_service_does(settings, photos, write_map, ground, tmp_path):
    town = write_map(tmp_path / "town.tif", ground(0, 128, 96))
    expected = [told_over_http(answer) for answer in asyncio.run(serve(settings, town, photos))]
    assert max(looks for *_, looks in expected) > 1  # so that the model is asked again, too
    loops = bare.Bare(settings.gallery, settings.model)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert [told(answer) for answer in loops.localize(photos)] == expected
            assert [told(answer) for answer in loops.localize(photos, pool)] == expected
        for loop, answered in ((bare.Loop(2, 0), 6), (bare.Loop(2, 2), 3)):
            go_on = iter([True] * 3)  # three batches; or three times a photo, or a wait for some
            assert 1 <= loop.run(loops, cycle(photos), lambda steps=go_on: next(steps, False)) <= answered
    finally:
        loops.close()
