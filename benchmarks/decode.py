"""What decoding at reduced scale saves: a 12-megapixel JPEG to what the model looks at, against Pillow at full size.

    python benchmarks/decode.py [--rounds 15] [PHOTO…]

Without photos: one of the examples enlarged to 4000 x 3000 pixels, as it is (smooth, a small file) and with the noise
of a sensor (a file as large as a camera's). Both ways end in RGB in memory; then both go on to the model's input, which
the service resizes from fewer pixels. The floor is libjpeg's smallest scale: most of it is Huffman decoding, which has
to be done for the whole file whatever becomes of it. In the service a process of its own decodes: what that costs is
told against the same work in this one; a busy machine makes it more, for both ends have to wait their turn.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from service.camera.known import KnownCamera
from service.encoder.contract import ModelContract, check_contract
from service.encoder.preprocess import preprocess
from service.imaging.decode import decode, open_photo
from service.imaging.view import make_view
from service.imaging.workers import Worker
from service.localization.looks import PlannedLook
from service.localization.pipeline import DECODE_SCALE
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX, QUALITY = (4000, 3000), 90
NOISE = 8.0  # of 255, standard deviation; makes a file of 4 MB, as those of small drones at low sensitivity


def made_photos() -> dict[str, bytes]:
    """Make an example at 12 megapixels, without and with noise."""
    smooth = Image.open(ROOT / "examples/photos/photo-1.jpg").resize(SIZE_PX, Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, NOISE, (SIZE_PX[1], SIZE_PX[0], 1))
    noisy = Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))
    return {"enlarged example": jpeg(smooth), "with a sensor's noise": jpeg(noisy)}


def jpeg(picture: Image.Image) -> bytes:
    """Return the picture as a file."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def milliseconds(ways: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median of what each way takes, in turns."""
    took = np.empty((rounds, len(ways)))
    for i in range(rounds):
        for j, way in enumerate(ways):
            started = time.perf_counter()
            way()
            took[i, j] = (time.perf_counter() - started) * 1e3
    return [float(value) for value in np.median(took, axis=0)]


def row(name: str, data: bytes, contract: ModelContract, worker: Worker, rounds: int) -> list[str]:
    """Return a photo's line of the table."""
    max_pixels, useful_px = Settings().max_image_pixels, DECODE_SCALE * contract.image_size

    def full() -> Image.Image:
        return Image.open(io.BytesIO(data)).convert("RGB")

    def ours_to_input() -> object:
        photo = decode(data, max_pixels, useful_px)
        look = PlannedLook(KnownCamera(), -90.0).look(photo.height / photo.width)
        return preprocess(make_view(photo.image, look), contract)

    def full_to_input() -> object:
        return preprocess(full(), contract)

    def in_a_process() -> object:
        file = open_photo(data, max_pixels)
        return worker.decode(file.job(useful_px), file.pieces)

    ways = [full, lambda: decode(data, max_pixels, useful_px), lambda: decode(data, max_pixels, 1), in_a_process]
    in_a_process()  # starts it
    pillow, ours, floor, apart, pillow_input, ours_input = milliseconds([*ways, full_to_input, ours_to_input], rounds)
    photo = decode(data, max_pixels, useful_px)
    size = f"{photo.width} x {photo.height}, {len(data) / 1e6:.1f} MB"
    decoding = [f"{ours:.1f} / {pillow:.1f}", f"{ours / pillow:.2f}", f"{floor / pillow:.2f}", f"{apart / ours:.2f}"]
    return [name, size, *decoding, f"{ours_input:.1f} / {pillow_input:.1f}", f"{ours_input / pillow_input:.2f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    photos = {path.name: path.read_bytes() for path in chosen.photos} or made_photos()
    contract = check_contract(Settings().model)
    load = f"{os.cpu_count()} CPUs, load before: {os.getloadavg()[0]:.1f}"
    table = Table(title=f"service / Pillow at full size, ms; {load} (goal: decode at most 0.40)")
    for column in ("photo", "", "decode", "ratio", "floor", "process / here", "to the model's input", "ratio"):
        table.add_column(column)
    worker = Worker()
    for name, data in photos.items():
        table.add_row(*row(name, data, contract, worker, chosen.rounds))
    worker.close()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
