"""A few hundred damaged images and bodies; ten thousand of them in tests/soak."""

import asyncio
import gc
import json

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# What a request may be told when it is itself at fault.
ITS_OWN_FAULT = {200, 400, 413, 415, 422}


@pytest.fixture
async def filled(http, tile_request):
    await http.post("/gallery", **tile_request(1, 2))
    return http


async def still_right(http, photo):
    answer = await http.post("/localize", files={"image": ("p.jpg", photo(2))})
    assert answer.json()["candidates"][0]["tile_id"] == "map/2"
    assert (await http.get("/readyz")).status_code == 200
    assert http.app.state.door.empty


async def test_damaged_images(filled, photo, damage, image_files):
    rng = np.random.default_rng(0)

    async def send():
        data = damage(rng, *(image_files[i] for i in rng.integers(len(image_files), size=2)))
        return await filled.post("/localize", files={"image": ("p.jpg", data)})

    for _ in range(40):
        answers = await asyncio.gather(*(send() for _ in range(8)))
        assert {answer.status_code for answer in answers} <= ITS_OWN_FAULT
    await still_right(filled, photo)


# Starlette leaves the last part of a body without an end to the garbage collector, which does close it.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning")
@pytest.mark.parametrize("path", ["/localize", "/gallery"])
async def test_damaged_bodies(filled, photo, damage, tile_request, path):
    rng = np.random.default_rng(1)
    sound = httpx.Request("POST", "http://t/", **tile_request(3, 4))
    sound.read()
    for _ in range(150):
        body = damage(rng, damage(rng, sound.content, photo(1)), sound.content)
        answer = await filled.post(path, content=body, headers={"Content-Type": sound.headers["content-type"]})
        assert answer.status_code in ITS_OWN_FAULT, answer.text
    await still_right(filled, photo)
    gc.collect()


texts = st.text(max_size=20) | st.sampled_from(["nan", "inf", "-0", "1e400", "0x1", "٣", "1_0", " 5 ", "true", "\0"])
numbers = st.floats().map(str) | st.integers(-(10**30), 10**30).map(str)
form_fields = st.dictionaries(
    st.sampled_from(
        [
            "top_k",
            "prior_lat",
            "prior_lon",
            "prior_radius_m",
            "heading_deg",
            "altitude_m",
            "hfov_deg",
            "use_exif",
            "refine",
        ]
    )
    | st.text(max_size=8),
    texts | numbers,
    max_size=5,
)
json_texts = st.text(st.characters(), max_size=10)  # with halves of surrogate pairs, which JSON can write
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | json_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_texts, inner, max_size=4),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "bounds": json_values | st.lists(st.floats(-400, 400), min_size=4, max_size=4),
        "corners": json_values
        | st.lists(st.lists(st.floats(-400, 400), min_size=2, max_size=2), min_size=4, max_size=4),
        "lat": json_values | st.floats(-100, 100),
        "lon": json_values | st.floats(-200, 200),
        "gsd_m": json_values | st.floats(-1, 1e9),
        "z": json_values | st.integers(-1, 40),
        "x": json_values | st.integers(-1, 2**40),
        "y": json_values | st.integers(-1, 2**40),
        "properties": json_values,
    },
)
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(form_fields)
async def test_any_form(filled, photo, form):
    answer = await filled.post("/localize", files={"image": ("p.jpg", photo(1))}, data=form)
    assert answer.status_code in ITS_OWN_FAULT, answer.text


@quick
@given(st.lists(entries | json_values, min_size=1, max_size=1) | json_values)
async def test_any_footprint(filled, photo, tiles):
    answer = await filled.post("/gallery", files={"image": ("p.jpg", photo(1))}, data={"tiles": json.dumps(tiles)})
    assert answer.status_code in ITS_OWN_FAULT, answer.text
    if answer.status_code == 200:
        problems = [tile["problem"] for tile in answer.json()["tiles"] if tile["status"] == "failed"]
        assert {problem["status"] for problem in problems} <= {422}, problems
