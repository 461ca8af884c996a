"""What a gallery says of itself, against the tiles that it lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.geo import union_bounds
from service.ground.extents import FIRST_ROWS, Extents
from service.ground.tile import Footprint, Tile

centres = st.tuples(st.floats(-80, 80), st.floats(-180, 180), st.floats(0.1, 3))


def tile(lat, lon, gsd_m):
    return Tile(f"{lat}/{lon}", Footprint.from_centre(lat, lon, gsd_m, 100, 100))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3 * FIRST_ROWS), centres), min_size=1, max_size=20),
    st.sets(st.integers(1, 3 * FIRST_ROWS)),
)
def test_what_was_put_and_not_dropped_counts(written, dropped):
    extents, kept = Extents(), {}
    for number, centre in written:
        extents.put([number], [tile(*centre)])
        kept[number] = tile(*centre)
    gone = [number for number in kept if number in dropped or number % 3 == 0]
    extents.drop(gone)
    footprints = [kept[number].footprint for number in sorted(kept) if number not in gone]
    rows = extents.rows()
    if not footprints:
        assert len(rows) == 0
        return
    assert union_bounds(rows[:, :4]) == union_bounds(np.array([footprint.bounds for footprint in footprints]))
    assert np.median(rows[:, 4]) == pytest.approx(np.median([footprint.side_m for footprint in footprints]))


def test_nothing_is_nowhere():
    extents = Extents()
    extents.put([], [])
    extents.drop([])
    assert len(extents.rows()) == 0
