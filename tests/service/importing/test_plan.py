"""The plan of a map: everything once, in an order that can be gone on with anywhere."""

import pytest

from service.errors import InvalidParameter
from service.ground.windows import Lattice, rectangle_of
from service.importing.plan import Plan, tiles_in, zooms_for

LATTICE = Lattice(224)
BOUNDS = (120.70, 24.25, 120.72, 24.262)
LEVELS = (18, 17, 16)


@pytest.fixture
def plan():
    return Plan(LATTICE, BOUNDS, LEVELS, 13, 18)


def cells(pieces):
    return [
        (piece.kind, piece.zoom, row, column)
        for piece in pieces
        for row in range(piece.area.top, piece.area.bottom)
        for column in range(piece.area.left, piece.area.right)
    ]


def test_every_tile_and_every_window_is_there_once(plan):
    places = cells(plan.pieces)
    assert len(places) == len(set(places)) == len(plan)
    for zoom in range(13, 19):
        area = tiles_in(rectangle_of(BOUNDS, zoom))
        kind = "read" if zoom == 18 else "shrink"
        wanted = {(kind, zoom, y, x) for y in range(area.top, area.bottom) for x in range(area.left, area.right)}
        assert {place for place in places if place[:2] == (kind, zoom)} == wanted
    for zoom in LEVELS:
        area = LATTICE.windows_in(rectangle_of(BOUNDS, zoom))
        assert sum(place[:2] == ("embed", zoom) for place in places) == (area.right - area.left) * (
            area.bottom - area.top
        )
    assert plan.windows == sum(place[0] == "embed" for place in places)


def test_a_phase_needs_nothing_that_comes_after_it(plan):
    kinds = [{(piece.kind, piece.zoom) for piece in phase} for phase in plan.phases(0)]
    assert kinds[:6] == [{("read", 18)}, *({("shrink", zoom)} for zoom in range(17, 12, -1))]
    assert kinds[6:] == [{("embed", zoom) for zoom in LEVELS}]


def test_it_goes_on_after_any_piece(plan):
    for piece in plan.pieces:
        left = [each for phase in plan.phases(piece.end) for each in phase]
        assert left == plan.pieces[plan.pieces.index(piece) + 1 :]
    assert plan.cost(0) == 0
    assert plan.cost(len(plan)) > plan.cost(len(plan) - 1)


def test_a_map_as_large_as_a_mistake_is_refused_at_once():
    with pytest.raises(InvalidParameter, match="give pieces of it"):
        Plan(LATTICE, (-90.0, -60.0, 90.0, 60.0), LEVELS, 3, 18)


def test_pixels_are_kept_as_fine_as_they_are_looked_at():
    levels = tuple(LATTICE.levels(0.3, 24.0))
    coarsest, finest = zooms_for(LATTICE, BOUNDS, 0.3, levels)
    assert finest == levels[0] == 19
    area = rectangle_of(BOUNDS, coarsest)
    assert area.right - area.left <= 130
    assert zooms_for(LATTICE, BOUNDS, 0.01, tuple(LATTICE.levels(0.01, 24.0)))[1] == 20  # drones need no more
    assert zooms_for(LATTICE, BOUNDS, 0.3, (15,))[1] == 19  # but another model may look closer
