"""What the ground costs: bytes a km², a million windows in memory, and the time of a photo against another version.

    python benchmarks/ground.py [--before FOLDER] [--windows 1000000] [--vectors FILE]

Bytes: a drawn square kilometre at 0.38 m/px, where that is the pixel of zoom 18, imported with three levels.
Windows: made vectors (``made_vectors.py``; --vectors keeps them), written as an import writes them, opened as the
service opens them. Photo: the six demo photos
against the demo map, over HTTP, in turns with a checkout of another version (``git worktree add FOLDER COMMIT``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import rasterio
from made_vectors import stored
from servers import ROOT, aerofix

sys.path[:0] = [str(ROOT), str(ROOT / "examples")]
from service.app import create_app  # noqa: E402
from service.ground.gallery import Gallery  # noqa: E402
from service.ground.maps import NewMap  # noqa: E402
from service.ground.store.imports import Step  # noqa: E402
from service.ground.store.schema import SCHEMA_VERSION  # noqa: E402
from service.ground.store.store import Store  # noqa: E402
from service.ground.windows import pack, pixel_m, rectangle_of  # noqa: E402
from service.settings import Settings  # noqa: E402
from town.town import make_town  # noqa: E402

ZOOM, LAT = 18, 50.43  # where a pixel of this zoom is 0.38 m
KM_PX = round(1000 / 0.38)
CHUNK = 4096
DIM = 512


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1_000_000)
    parser.add_argument("--before", type=Path, help="checkout of the version to compare photos with")
    parser.add_argument("--vectors", type=Path, help="keep the vectors in FILE.npy, or use those that are there")
    parser.add_argument("--rounds", type=int, default=10, help="of the six photos, for each version")
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.1f}, schema {SCHEMA_VERSION}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(bytes_of_a_square_kilometre(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        vectors, _ = stored(chosen.vectors or Path(folder) / "vectors.npy", chosen.windows)
        million(Path(folder) / "g.gallery", vectors[: chosen.windows])
    if chosen.before is not None:
        photo_times(chosen.before.resolve(), chosen.rounds)


async def bytes_of_a_square_kilometre(folder: Path) -> None:
    """Import a square kilometre with three levels."""
    pixels = np.asarray(make_town(1, KM_PX * 0.38, 0.38).rgb)
    side_m = 40_075_016.685578488
    res = side_m / (256 * 2**ZOOM)
    top = rectangle_of((10.0, LAT - 0.01, 10.01, LAT), ZOOM).top
    left = rectangle_of((10.0, LAT - 0.01, 10.01, LAT), ZOOM).left
    transform = rasterio.Affine(res, 0, left * res - side_m / 2, 0, -res, side_m / 2 - top * res)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:3857", "transform": transform}
    path = folder / "km.tif"
    with rasterio.open(path, "w", width=pixels.shape[1], height=pixels.shape[0], **profile) as out:
        out.write(pixels.transpose(2, 0, 1))
    sizes = ",".join(f"{224 * pixel_m(zoom, LAT):.0f}" for zoom in (18, 17, 16))
    app = create_app(Settings(gallery=folder / "g.gallery"))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        content = await asyncio.to_thread(path.read_bytes)
        form = {"tile_size_m": sizes}
        started = time.perf_counter()
        answer = await http.post("/gallery/imports", files={"file": ("km.tif", content)}, data=form)
        answer.raise_for_status()
        where = answer.headers["location"]
        while (state := (await http.get(where)).json())["state"] in ("queued", "running"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        took_s = time.perf_counter() - started
    area_km2 = (pixels.shape[0] * 0.38 / 1000) * (pixels.shape[1] * 0.38 / 1000)
    with closing(Store(folder / "g.gallery")) as store:
        parts = {
            name: store.file.one(f"SELECT total(length({column})) FROM {table}") / 1e6 / area_km2
            for name, table, column in (
                ("pixels", "pixels", "image"),
                ("embeddings", "windows", "embeddings"),
                ("descriptors", "blocks", "local"),
            )
        }
    whole = (folder / "g.gallery").stat().st_size / 1e6 / area_km2
    each = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
    print(f"a km² at 0.38 m/px, three levels: {whole:.1f} MB in the file (goal 14): {each}")
    print(f"  {state['added']} windows in {took_s:.0f} s")


def million(path: Path, vectors: np.ndarray) -> None:
    """Write windows, then open them in another process that tells time and memory."""
    count, columns = len(vectors), 1000
    with Gallery.open(path, "made", DIM) as gallery:
        gallery.imports.create("made.tif", {"map": "made"}, count, "0" * 16)
        new = NewMap("made", "made.tif", (10.0, 40.0, 11.0, 41.0), 0.3, None, (18,), True, 10, 18)
        known = gallery.maps.create(new, True, "0" * 16)
        gallery.imports.begin("0" * 16, count)
        store = gallery._store.maps
        for start in range(0, count, CHUNK):
            n = np.arange(start, min(start + CHUNK, count))
            ids = pack(known.number, 18, 300_000 + n // columns, 300_000 + n % columns)
            store.put_windows(known.number, ids, np.asarray(vectors[n]), {}, Step("0" * 16, int(n[-1]) + 1))
    code = f"""
import time
from service.ground.gallery import Gallery
from service.ground.index.tiered import CODES_FROM
import numpy, faiss
def rss():
    return int(open('/proc/self/statm').read().split()[1]) * 4096
before, started, busy = rss(), time.perf_counter(), time.thread_time()
gallery = Gallery.open({str(path)!r}, "made", {DIM})
took, worked, grown = time.perf_counter() - started, time.thread_time() - busy, rss() - before
coding = time.perf_counter()
while gallery.count() >= CODES_FROM and gallery.info().index["kind"] == "flat" and time.perf_counter() < coding + 900:
    time.sleep(0.5)
time.sleep(5)  # memory that was needed to make codes is given back
print(took, worked, grown, rss() - before, gallery.count(), gallery.info().index)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    took, worked, opened, coded, windows, index = done.stdout.split(maxsplit=5)
    print(f"{windows} windows: open {float(took):.1f} s, {float(worked):.1f} s of a CPU (goal 8 at 1,000,000)")
    for state, grown in (("opened", int(opened) / int(windows)), ("coded", int(coded) / int(windows))):
        beside, ratio = grown - 2 * DIM, grown / (2 * DIM)
        print(f"  {state}: {grown:.0f} bytes a window (goal 1.3 times the vectors: {ratio:.2f}),")
        print(f"    {beside:.0f} beside the vectors (goal 200)")
    print(f"  {index.strip()}")


def photo_times(before: Path, rounds: int) -> None:
    """Return the median time of a demo photo, in turns by this version and another."""
    photos = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
    times: dict[str, list[float]] = {"now": [], "before": []}
    with tempfile.TemporaryDirectory() as folder:
        services = {}
        for name, root in (("now", ROOT), ("before", before)):
            gallery = Path(folder) / f"{name}.gallery"
            command = [sys.executable, "-m", "service.cli.main", "gallery", "add", ROOT / "examples" / "town.tif"]
            environment = os.environ | {"PYTHONPATH": str(root)}
            subprocess.run([*map(str, command), "--gallery", str(gallery)], check=True, cwd=root, env=environment)
            server = aerofix(gallery, ROOT / "models" / "aerofix-lite2.onnx", {"PYTHONPATH": str(root)})
            services[name] = replace(server, cwd=root)
        with services["now"].running() as now, services["before"].running() as old, httpx.Client(timeout=60) as http:
            for _ in range(rounds):
                for photo in photos:
                    for name, url in (("now", now), ("before", old)):
                        started = time.perf_counter()
                        http.post(url, files={"image": photo.read_bytes()}).raise_for_status()
                        times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(each[6:]) * 1000 for name, each in times.items()}
    ratio = medians["now"] / medians["before"]
    print(f"a demo photo: {medians['now']:.0f} ms, before {medians['before']:.0f} ms, ratio {ratio:.2f} (goal 1.00)")


if __name__ == "__main__":
    main()
