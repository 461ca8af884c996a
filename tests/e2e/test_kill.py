"""The service is killed without warning, over and over: nothing acknowledged is lost, and it always starts again."""

import io
import json
import os
import random
import signal
import threading
import time
import zipfile
from contextlib import closing, suppress

import httpx
import pytest

from service.ground.store.copies import verify
from service.ground.store.store import Store

MAX_RUN_S = 0.6  # between the start and the kill: from the first write to well into the work


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def all_ids(url):
    ids, cursor = set(), "0"
    while cursor is not None:
        page = httpx.get(f"{url}/gallery/tiles", params={"limit": 1000, "cursor": cursor}).json()
        ids |= {tile["id"] for tile in page["tiles"]}
        cursor = page["cursor"]
    return ids


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_what_was_acknowledged_survives_kills_during_ingest(serve, settings, tile_request, rounds):
    """Clients add and delete while the service dies; what they were told holds after each restart."""
    pause = random.Random(1)
    added, unsure = set(), set()

    def work(url, client, first):
        with httpx.Client(base_url=url) as http:
            for column in range(first, first + 10_000, 2):
                names = [f"map/{client}-{column}", f"map/{client}-{column + 1}"]
                form = tile_request(1, 2)
                entries = json.loads(form["data"]["tiles"])
                form["data"]["tiles"] = json.dumps([e | {"id": n} for e, n in zip(entries, names, strict=True)])
                try:
                    unsure.update(names)
                    assert http.post("/gallery", **form).json()["added"] == 2
                    added.update(names)
                    unsure.difference_update(names)
                    if column % 6 == 0:
                        gone = f"map/{client}-{column}"
                        added.discard(gone)
                        unsure.add(gone)
                        assert http.delete(f"/gallery/tiles/{gone}").json()["deleted"] == 1
                        unsure.discard(gone)
                except httpx.TransportError:
                    return

    for round_ in range(rounds):
        process, url = serve()
        assert added <= all_ids(url) <= added | unsure
        clients = [threading.Thread(target=work, args=(url, f"{round_}-{n}", 0)) for n in range(2)]
        for client in clients:
            client.start()
        time.sleep(pause.uniform(0.1, MAX_RUN_S))
        kill(process)
        for client in clients:
            client.join()
    assert len(added) > rounds
    process, url = serve()
    left = all_ids(url)
    assert added <= left <= added | unsure
    image = httpx.get(f"{url}/gallery/tiles/{max(added)}/image")
    assert image.content.startswith(b"\xff\xd8\xff")
    kill(process)
    with closing(Store(settings().gallery)) as store:
        assert verify(store) == len(left)


@pytest.mark.parametrize(("rounds", "tiles"), [(3, 1500), pytest.param(30, 15_000, marks=pytest.mark.soak)])
def test_an_import_that_is_killed_again_and_again_adds_every_tile_once(
    serve, settings, ground, encode_image, rounds, tiles, tmp_path
):
    pause = random.Random(2)
    images = [encode_image(ground(n, 16, 16)) for n in range(50)]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as out:
        for n in range(tiles):
            out.writestr(f"17/{109_000 + n // 1000}/{56_000 + n % 1000}.png", images[n % 50])

    process, url = serve()
    answer = httpx.post(f"{url}/gallery/imports", files={"file": ("p.zip", archive.getvalue())}, timeout=60)
    where = answer.headers["location"]
    seen = 0
    stuck = False
    for _ in range(rounds):
        time.sleep(pause.uniform(0.05, MAX_RUN_S))
        while True:
            state = httpx.get(f"{url}{where}").json()
            assert state["done"] >= seen
            if state["done"] > seen or not stuck:  # one that dies twice without progress is given up
                break
            time.sleep(0.02)
        stuck = state["done"] == seen
        seen = state["done"]
        kill(process)
        process, url = serve()
        state = httpx.get(f"{url}{where}").json()
        assert state["done"] >= seen
        assert state["added"] == state["done"]
    while (state := httpx.get(f"{url}{where}").json())["state"] == "running":
        time.sleep(0.05)
    assert (state["state"], state["done"], state["added"], state["updated"]) == ("done", tiles, tiles, 0)
    assert (state["failed"], state["skipped"]) == (0, 0)
    assert len(all_ids(url)) == tiles
    kill(process)
    with closing(Store(settings().gallery)) as store:
        assert verify(store) == tiles
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


DEADLY = """
import os, signal
from service.cli.main import app
from service.maps.file_tiles import FileTiles

read = FileTiles.read

def read_or_die(tiles, i):
    if tiles.label(i) == "17/9/40.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return read(tiles, i)

FileTiles.read = read_or_die
app()
"""


def test_an_import_that_ends_the_process_is_given_up_and_the_others_go_on(serve, ground, encode_image):
    """As when the memory runs out or GDAL crashes: at the 40th tile the process is gone."""
    image = encode_image(ground(1, 16, 16))

    def send(url, count):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            for n in range(count):
                file.writestr(f"17/9/{n}.png", image)
        with suppress(httpx.TransportError):  # it may die before it has answered
            httpx.post(f"{url}/gallery/imports", files={"file": ("p.zip", out.getvalue())}, timeout=60)

    def last_import(url):
        """Of the service at this address when it has ended, or None when the service has."""
        with suppress(httpx.TransportError):
            while True:
                state = httpx.get(f"{url}/gallery/imports").json()["imports"][0]
                if state["state"] not in ("queued", "running"):
                    return state
                time.sleep(0.02)

    process, url = serve(("-c", DEADLY))
    send(url, 50)
    starts = 1
    while (state := last_import(url)) is None:
        process.wait()
        process, url = serve(("-c", DEADLY))
        starts += 1
    assert state["state"] == "failed"
    assert "ended the service 2 times at the same place" in state["problem"]["detail"]
    assert starts <= 5  # the two steps before it may be stored one by one
    send(url, 30)
    state = last_import(url)
    assert (state["state"], state["added"] + state["updated"]) == ("done", 30)
