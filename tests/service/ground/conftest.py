import numpy as np
import pytest

from service.ground.records import NewTile
from service.ground.tile import Footprint, Tile

DIM = 16


@pytest.fixture
def new_tile():
    """Makes a tile at a place, with the embedding of its own seed."""

    def make(tile_id, lat=24.26, lon=120.71, seed=0, **properties):
        embedding = np.random.default_rng(seed).normal(size=DIM)
        embedding = (embedding / np.linalg.norm(embedding)).astype(np.float32)
        footprint = Footprint.from_centre(lat, lon, 0.25, 344, 344)
        return NewTile(Tile(tile_id, footprint, properties), embedding, f"jpeg of {tile_id} {seed}".encode())

    return make
