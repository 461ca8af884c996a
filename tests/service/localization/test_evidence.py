import numpy as np
import pytest

from service.localization.evidence import FULL, RASTER, support
from service.localization.matching import cell_centres


def test_matches_from_all_over_count_by_their_number_and_those_of_a_patch_for_less():
    """Four in each cell of the raster are worth their count; as many in one of its cells a seventh of that."""
    over_all = cell_centres(2 * RASTER, 2 * RASTER)
    assert FULL == 4
    assert support(over_all, 80 * over_all, 80.0) == pytest.approx(len(over_all))
    patch = over_all / RASTER
    assert support(patch, 80 * patch, 80.0) == pytest.approx(len(patch) / RASTER)


def test_the_narrower_of_photo_and_window_counts():
    over_all = cell_centres(2 * RASTER, 2 * RASTER)
    assert support(over_all, 80 * over_all / RASTER, 80.0) == support(over_all / RASTER, 80 * over_all, 80.0)


def test_nothing_is_worth_nothing():
    assert support(np.empty(0, complex), np.empty(0, complex), 80.0) == 0
