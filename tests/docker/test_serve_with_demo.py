"""The container's start: the demo map is added once, whole or not at all."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from service.ground.store.maps import MapStore
from service.ground.store.store import Store

SCRIPT = Path(__file__).parents[2] / "docker" / "serve-with-demo"

# `aerofix` as the script finds it, but that it only says that it would serve, and may die when it has added the tiles
AEROFIX = """#!/bin/sh
if [ "$1" = serve ]; then echo serving; exit; fi
'{python}' -m service.cli.main "$@" || exit
if [ -n "${{DIES:-}}" ]; then kill -KILL $PPID; fi
"""


@pytest.fixture
def start(tmp_path, tiny_model):
    """``start(**environment)`` runs the script once, on one gallery, and returns its exit code and output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "aerofix"
    program.write_text(AEROFIX.format(python=sys.executable))
    program.chmod(0o755)
    colours = np.random.default_rng(0).integers(1, 256, (3, 100, 100), dtype=np.uint8)
    profile = {"driver": "GTiff", "width": 100, "height": 100, "count": 3, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(tmp_path / "map.tif", "w", transform=Affine(2, 0, 500_000, 0, -2, 6_000_000), **profile) as file:
        file.write(colours)
    given = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "AEROFIX_MODEL": str(tiny_model(tmp_path / "m.onnx")),
        "AEROFIX_GALLERY": str(tmp_path / "g.gallery"),
        "AEROFIX_DEMO_MAP": str(tmp_path / "map.tif"),
        "AEROFIX_DEVICE": "cpu",
    }

    def run(**environment):
        done = subprocess.run(
            [SCRIPT], env=os.environ | given | environment, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout.splitlines()

    return run


def windows(path):
    with closing(Store(path)) as store:
        return sum(len(ids) for ids, _ in MapStore(store).windows())


def test_the_first_start_adds_the_map_and_the_next_leaves_it_alone(start, tmp_path):
    code, said = start()
    assert (code, said[-1]) == (0, "serving")
    assert windows(tmp_path / "g.gallery") > 0
    before = (tmp_path / "g.gallery").read_bytes()
    assert start() == (0, ["serving"])
    assert (tmp_path / "g.gallery").read_bytes() == before


def test_one_killed_before_the_map_was_whole_is_made_up_for(start, tmp_path):
    code, said = start(DIES="yes")
    assert code == -9
    assert "serving" not in said
    assert not (tmp_path / "g.gallery").exists()
    (tmp_path / "g.gallery.new").write_bytes(b"half a file")
    (tmp_path / "g.gallery.new-wal").write_bytes(b"half a log")
    assert start()[1][-1] == "serving"
    assert windows(tmp_path / "g.gallery") > 0
    assert list(tmp_path.glob("*.new*")) == []


def test_a_map_that_cannot_be_added_stops_the_start(start, tmp_path):
    code, said = start(AEROFIX_DEMO_MAP=str(tmp_path / "nothing.tif"))
    assert code == 1
    assert "serving" not in said
    assert not (tmp_path / "g.gallery").exists()


def test_the_demo_can_be_left_out(start, tmp_path):
    assert start(AEROFIX_DEMO="false") == (0, ["serving"])
    assert not (tmp_path / "g.gallery").exists()
