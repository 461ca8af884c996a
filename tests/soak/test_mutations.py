"""Ten thousand damaged images and bodies, a thousand damaged maps: no crash, no hang, no leak."""

import asyncio
import gc
import io
import json
import os
import zipfile
from pathlib import Path

import hostile
import httpx
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from service.app import create_app
from service.settings import Settings

COUNT = 10_000
IMPORTS = 1_000
AT_ONCE = 8
LONG_S = 600  # nothing takes that long, on the slowest machine
# Bytes that the process may grow by after the first tenth. Were the pixels of each image kept, 48 * 40 * 3 bytes, that
# would be 50 MB.
MAX_GROWTH = 32 * 2**20

pytestmark = [
    pytest.mark.soak,
    # Starlette leaves the last part of a body without an end to the garbage collector, which does close it.
    pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile:ResourceWarning"),
]


@pytest.fixture
async def http(tmp_path, tiny_model, ground, encode_image):
    """A running service with one tile, of an image that is not damaged."""
    settings = Settings(
        model=tiny_model(tmp_path / "m.onnx"),
        gallery=tmp_path / "g",
        device="cpu",
        threads=1,
        max_image_pixels=10**6,
        deadline_s=LONG_S,  # a machine that is busy with other things is no failure
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        files = {"image": ("t.png", encode_image(ground(1, 64, 64)))}
        tiles = json.dumps([{"id": "sound", "lat": 24.26, "lon": 120.72, "gsd_m": 1.5}])
        assert (await client.post("/gallery", files=files, data={"tiles": tiles})).json()["added"] == 1
        client.door, client.folder = app.state.door, tmp_path
        yield client


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack(http, requests):
    """Send requests, a few at a time; each is answered as its own fault, and memory stays what it was."""
    before = 0
    for round_ in range(COUNT // AT_ONCE):
        async with asyncio.timeout(LONG_S):
            answers = await asyncio.gather(*(http.post(path, **next(requests)) for path in ["/localize"] * AT_ONCE))
        assert {answer.status_code for answer in answers} <= {200, 400, 413, 415, 422}
        if round_ == COUNT // AT_ONCE // 10:
            before = resident_bytes()
    await unharmed(http, before)


async def unharmed(http, before):
    """Nothing is left of what was sent, and the service goes on."""
    gc.collect()
    assert resident_bytes() - before < MAX_GROWTH
    assert http.door.empty
    assert (await http.get("/readyz")).status_code == 200


async def test_damaged_images(http, damage, image_files):
    """Ordinary ones, and small ones of the kinds that are counted before they are decoded."""
    rng = np.random.default_rng(2)
    image_files = [*image_files, *hostile.light()]

    def requests():
        while True:
            data = damage(rng, *(image_files[i] for i in rng.integers(len(image_files), size=2)))
            yield {"files": {"image": ("p.jpg", data)}}

    await attack(http, requests())


async def test_damaged_bodies(http, damage, image_files):
    rng = np.random.default_rng(3)
    sound = httpx.Request("POST", "http://t/", files={"image": ("p.jpg", image_files[0])}, data={"top_k": "3"})
    sound.read()
    headers = {"Content-Type": sound.headers["content-type"]}

    def requests():
        while True:
            body = damage(rng, sound.content, image_files[int(rng.integers(len(image_files)))])
            yield {"content": damage(rng, body or b"-", sound.content), "headers": headers}

    await attack(http, requests())


@pytest.fixture
def geotiffs(tmp_path, ground):
    """Maps of 64 m, stored in the ways that GDAL reads by different code."""
    bands = np.asarray(ground(1, 64, 64)).transpose(2, 0, 1)
    options = [{}, {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16}, {"compress": "lzw"}]
    options += [{"compress": "jpeg"}, {"driver": "COG"}]
    where = {"crs": "EPSG:32651", "transform": Affine(1, 0, 500_000, 0, -1, 2_700_000)}
    files = []
    for number, chosen in enumerate(options):
        path = tmp_path / f"map-{number}.tif"
        profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 3, "dtype": "uint8"} | where | chosen
        with rasterio.open(path, "w", **profile) as out:
            out.write(bands)
        files.append(path.read_bytes())
    return files


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


async def ended(http, location):
    """What became of an import; one that a damaged number has made endless is cancelled."""
    async with asyncio.timeout(LONG_S):
        while True:
            answer = await http.get(location)
            state = answer.json()
            if state["state"] in ("done", "failed", "cancelled"):
                return answer
            if state["total"] > 100:
                assert (await http.delete(location)).status_code == 200
            await asyncio.sleep(0.005)


def tells_nothing(http, text):
    return not any(secret in text for secret in (str(http.folder), "/vsi", "Traceback", '"status":500'))


async def test_damaged_maps(http, damage, geotiffs, image_files):
    """Damaged outside, or inside a sound zip: its checksums would stop most damage before it gets anywhere."""
    rng = np.random.default_rng(4)
    corners = "Filename, Top_left_lat, Top_left_lon, Bottom_right_lat, Bottom_right_long\n"
    corners = (
        corners + "".join(f"images/{n}.png,{24 + n / 1000},120,{23.999 + n / 1000},120.001\n" for n in (0, 1))
    ).encode()
    image, before, taken = image_files[2], 0, 0

    def change(data):
        return damage(rng, data, geotiffs[0])

    def upload():
        match int(rng.integers(5)):
            case 0 | 1:
                return "a.tif", change(geotiffs[int(rng.integers(len(geotiffs)))])
            case 2:
                return "a.zip", change(zipped({"17/109000/56000.png": image, "17/109000/56001.png": image}))
            case 3:
                return "a.zip", zipped({"tiles.csv": change(corners), "images/0.png": image, "images/1.png": image})
            case _:
                return "a.zip", zipped({"17/109000/56000.png": change(image), "17/109000/56001.png": image})

    for number in range(IMPORTS):
        async with asyncio.timeout(LONG_S):
            answer = await http.post("/gallery/imports", files={"file": upload()}, data={"replace": "true"})
        assert answer.status_code in {202, 413, 415, 422}, answer.text
        if answer.status_code == 202:
            taken += 1
            answer = await ended(http, answer.headers["location"])
        assert tells_nothing(http, answer.text), answer.text
        if number == IMPORTS // 10:
            before = resident_bytes()
    assert taken > IMPORTS // 10  # much of it was worth reading
    assert not list((http.folder / "g-imports").iterdir())
    await unharmed(http, before)
