"""Ctrl-C while threads are inside C code: the process ends as one that was interrupted, not as one that crashed."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
from affine import Affine

LONG = 60  # seconds; no test waits that long
INTERRUPTED = 130  # as shells have it: 128 and the number of SIGINT

# ``aerofix`` whose maps are read only when the file named first is gone; it says when a map is closed under a reader
HELD_READ = """
import pathlib, sys, time
from service.cli.main import main
from service.maps.pieces import Pieces
held, read, close, inside = pathlib.Path(sys.argv.pop(1)), Pieces.read, Pieces.close, []
def read_later(self, *area):
    inside.append(area)
    print("reads", flush=True)
    while held.exists():
        time.sleep(0.01)
    tile = read(self, *area)
    inside.pop()
    return tile
def say_and_close(self):
    if inside:
        print("closed while it is read", flush=True)
    close(self)
Pieces.read, Pieces.close = read_later, say_and_close
main()
"""

# ``aerofix`` whose encoder does not come to the end of a batch, as on a machine that is far too busy
BUSY = """
import numpy as np
from service.cli.main import main
from service.encoder.batcher import Batcher
def encode_on_and_on(self, batch, reason):
    print("encodes", flush=True)
    while True:
        self._encode(np.stack([item.image for item in batch]))
Batcher._run = encode_on_and_on
main()
"""

# ``aerofix`` whose parts take long to load
LOADING = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "service.cli.main":
            print("loads", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from service.cli.__main__ import main
main()
"""

# ``aerofix`` whose commands take long to put together
PUTTING_TOGETHER = """
import time, typer.main
def slowly(app):
    print("loads", flush=True)
    time.sleep(60)
typer.main.get_command = slowly
from service.cli.__main__ import main
main()
"""


@pytest.fixture
def add(tmp_path, tiny_model, ground):
    """``add(program, *arguments)`` starts ``aerofix gallery add`` of a small map with a gallery file of its own."""
    path = tmp_path / "town.tif"
    profile = {"driver": "GTiff", "width": 256, "height": 256, "count": 3, "dtype": "uint8", "crs": "EPSG:32651"}
    with rasterio.open(path, "w", **profile, transform=Affine(1, 0, 500_000, 0, -1, 2_700_000)) as out:
        out.write(np.asarray(ground(4, 256, 256)).transpose(2, 0, 1))
    local = ["--gallery", tmp_path / "g.gallery", "--model", tiny_model(tmp_path / "m.onnx"), "--device", "cpu"]

    def start(program, *arguments):
        command = [sys.executable, "-c", program, *arguments, "gallery", "add", path, "--tile-size-m", "64", *local]
        return subprocess.Popen(map(str, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def test_a_map_is_not_closed_while_a_thread_reads_it(add, tmp_path):
    held = tmp_path / "held"
    held.touch()
    with add(HELD_READ, held) as process:
        try:
            assert process.stdout.readline() == "reads\n"
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)  # for a process that does it wrong; one that does it right may take as long as it likes
            held.unlink()
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    assert "closed while it is read" not in out
    assert (process.returncode, err.count("Traceback")) == (INTERRUPTED, 0)


def test_a_thread_that_is_still_inside_the_model_does_not_crash_the_end(add):
    code, _, err = interrupted_at(add(BUSY), "encodes\n")
    assert (code, err.count("terminate called"), err.count("Traceback")) == (INTERRUPTED, 0, 0)


@pytest.mark.parametrize("program", [LOADING, PUTTING_TOGETHER], ids=["parts", "commands"])
def test_while_it_loads_it_ends_without_a_word(add, program):
    assert interrupted_at(add(program), "loads\n") == (-signal.SIGINT, "", "")


def interrupted_at(started, line):
    """Press Ctrl-C once a process has printed this line; its exit code, and what it printed after that."""
    with started as process:
        try:
            assert process.stdout.readline() == line
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LONG)
        finally:
            process.kill()
    return process.returncode, out, err
