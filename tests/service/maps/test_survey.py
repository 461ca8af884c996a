"""The first look at a raster costs no more than it may, however large the raster says that it is."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.maps.rendering import Rendering
from service.maps.survey import MAX_CELLS, MAX_SAMPLED_BYTES, survey


class Raster(SimpleNamespace):
    """An open raster of three bands of bytes that notes in which of its blocks it is read."""

    def __init__(self, side, block, interleave):
        super().__init__(width=side, height=side, count=3, dtypes=("uint8",) * 3, block_shapes=(block,) * 3)
        self.profile, self.blocks = {"interleave": interleave}, []

    def overviews(self, band):
        return []

    def read(self, bands, window):
        rows, columns = self.block_shapes[0]
        top, left = int(window.row_off), int(window.col_off)
        touched = {(y // rows, left // columns) for y in range(top, top + window.height)}
        self.blocks += [block for block in sorted(touched) if block not in self.blocks[-len(touched) :]]
        return np.full((len(bands), window.height, window.width), 7, np.uint8)

    def dataset_mask(self, resampling, window):
        return np.full((window.height, window.width), 255, np.uint8)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    ("side", "block", "along"),
    [
        (100_000, (512, 512), MAX_CELLS),
        (100_000, (1024, 1024), MAX_CELLS),
        (100_000, (1, 100_000), MAX_CELLS),
        (30_000, (4096, 4096), MAX_CELLS),  # all of it, once
        (1_000_000, (4096, 4096), 16),
        (1_000_000, (9216, 9216), 8),
    ],
)
def test_the_blocks_of_all_samples_are_few(side, block, along, interleave):
    raster = Raster(side, block, interleave)
    seen = survey(raster, Rendering((1, 2, 3)))
    assert seen.bands.shape[1:3] == (along, along)
    assert seen.valid.all()
    assert (seen.bands == 7).all()
    decoded = len(raster.blocks) * block[0] * block[1] * 3
    assert decoded <= 1.1 * MAX_SAMPLED_BYTES  # some samples lie across the border of two blocks
