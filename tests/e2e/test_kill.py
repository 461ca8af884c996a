"""The service is killed without warning, over and over: nothing acknowledged is lost, and it always starts again."""

import json
import os
import random
import signal
import threading
import time
from contextlib import closing, suppress

import httpx
import numpy as np
import pytest

from service.ground.store.copies import verify
from service.ground.store.store import Store

MAX_RUN_S = 0.6  # between the first acknowledged write, or the start of one, and the kill
LONG_S = 300  # nothing takes that long, on the slowest machine


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def ask(address, **params):
    return httpx.get(address, params=params, timeout=LONG_S).json()


def all_ids(url):
    ids, cursor = set(), "0"
    while cursor is not None:
        page = ask(f"{url}/gallery/tiles", limit=1000, cursor=cursor)
        ids |= {tile["id"] for tile in page["tiles"]}
        cursor = page["cursor"]
    return ids


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_what_was_acknowledged_survives_kills_during_ingest(serve, settings, tile_request, rounds):
    """Clients add and delete while the service dies; what they were told holds after each restart."""
    pause = random.Random(1)
    added, unsure = set(), set()

    def work(url, client, first, told):
        with httpx.Client(base_url=url, timeout=LONG_S) as http:
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
                    told.set()
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
        told = threading.Event()
        clients = [threading.Thread(target=work, args=(url, f"{round_}-{n}", 0, told)) for n in range(2)]
        for client in clients:
            client.start()
        assert round_ % 4 == 3 or told.wait(LONG_S)  # every fourth time it may die before it has answered anybody
        time.sleep(pause.uniform(0.1, MAX_RUN_S))
        kill(process)
        for client in clients:
            client.join()
    assert len(added) >= rounds / 2
    process, url = serve()
    left = all_ids(url)
    assert added <= left <= added | unsure
    image = httpx.get(f"{url}/gallery/tiles/{max(added)}/image", timeout=LONG_S)
    assert image.content.startswith(b"\xff\xd8\xff")
    kill(process)
    with closing(Store(settings().gallery)) as store:
        assert verify(store) == len(left)


@pytest.mark.parametrize(("rounds", "side_px"), [(3, 1024), pytest.param(30, 2048, marks=pytest.mark.soak)])
def test_an_import_that_is_killed_again_and_again_adds_every_window_once(
    serve, settings, ground, write_map, rounds, side_px, tmp_path
):
    pause = random.Random(2)
    noise = np.random.default_rng(3).integers(-20, 21, (side_px, side_px, 3))  # a window of one colour is left out
    picture = (np.asarray(ground(3, side_px, side_px)) + noise).clip(0, 255).astype(np.uint8)
    data = write_map(tmp_path / "town.tif", picture).read_bytes()
    process, url = serve()
    answer = httpx.post(f"{url}/gallery/imports", files={"file": ("town.tif", data)}, timeout=LONG_S)
    where = answer.headers["location"]
    seen = 0
    stuck = False
    for _ in range(rounds):
        time.sleep(pause.uniform(0.05, MAX_RUN_S))
        while True:
            state = ask(f"{url}{where}")
            assert state["done"] >= seen
            assert state["state"] != "failed", state
            if state["done"] > seen or not stuck:  # one that dies twice without progress is given up
                break
            time.sleep(0.02)
        stuck = state["done"] == seen
        seen = state["done"]
        kill(process)
        process, url = serve()
        state = ask(f"{url}{where}")
        assert state["done"] >= seen
        seen = state["done"]  # with what was stored between the last look and the kill
        assert state["added"] + state["skipped"] <= state["done"]
        assert ask(f"{url}/gallery")["count"] >= state["added"]
    while (state := ask(f"{url}{where}"))["state"] in ("queued", "running"):
        time.sleep(0.05)
    assert (state["state"], state["done"], state["updated"], state["failed"]) == ("done", state["total"], 0, 0)
    rows = side_px // 16  # windows of zoom 16 whose upper left corner lies in the map; those round it show half of it
    ids = all_ids(url)
    assert {f"town/16/{448_000 + r}/{875_000 + c}" for r in range(rows - 1) for c in range(rows - 1)} <= ids
    assert len(ids) == state["added"]
    kill(process)
    with closing(Store(settings().gallery)) as store:
        assert verify(store) == len(ids)
    assert list((tmp_path / "g.gallery-imports").iterdir()) == []


DEADLY = """
import os, signal
from service.cli.main import app
from service.importing import builder

cut = builder.cut_windows

def cut_or_die(piece, *rest):
    if piece.zoom == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    return cut(piece, *rest)

builder.cut_windows = cut_or_die
app()
"""


def test_an_import_that_ends_the_process_is_given_up_and_the_others_go_on(serve, ground, write_map, tmp_path):
    """As when the memory runs out or GDAL crashes: at the second level the process is gone."""

    def send(url, name, side_px):
        data = write_map(tmp_path / "map.tif", ground(1, side_px, side_px)).read_bytes()
        with suppress(httpx.TransportError):  # it may die before it has answered
            form = {"tile_size_m": ["70", "140"] if name == "deadly" else ["70"]}
            httpx.post(f"{url}/gallery/imports", files={"file": (f"{name}.tif", data)}, data=form, timeout=LONG_S)

    def last_import(url):
        """Of the service at this address when it has ended, or None when the service has."""
        with suppress(httpx.TransportError):
            while True:
                state = ask(f"{url}/gallery/imports")["imports"][0]
                if state["state"] not in ("queued", "running"):
                    return state
                time.sleep(0.02)

    process, url = serve(("-c", DEADLY))
    send(url, "deadly", 256)
    starts = 1
    while (state := last_import(url)) is None:
        process.wait()
        process, url = serve(("-c", DEADLY))
        starts += 1
    assert state["state"] == "failed"
    assert "ended the service 2 times at the same place" in state["problem"]["detail"]
    assert starts <= 6  # one with others beside it, one after those, two alone, and the last that gives it up
    send(url, "good", 64)
    state = last_import(url)
    assert (state["state"], state["map"]) == ("done", "good")
