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


def tiles_below(piece):
    """What a piece is made of, by the definition of a tile and of a window, not by the plan's own layers."""
    left, top, right, bottom = piece.area
    if piece.kind == "read":
        return piece.zoom, range(0), range(0)
    if piece.kind == "shrink":
        return piece.zoom + 1, range(2 * left, 2 * right), range(2 * top, 2 * bottom)
    step, side = LATTICE.step_px, LATTICE.side_px
    across, down = (
        range(first * step // 256, ((last - 1) * step + side - 1) // 256 + 1)
        for first, last in ((left, right), (top, bottom))
    )
    return piece.zoom, across, down


@pytest.mark.parametrize("bounds", [BOUNDS, (179.99, 24.25, -179.985, 24.27), (120.7, 24.25, 120.7003, 24.2503)])
def test_a_piece_needs_just_what_it_is_made_of(bounds):
    plan = Plan(LATTICE, bounds, LEVELS, 13, 18)
    end_of = {
        (piece.zoom, x, y): piece.end
        for piece in plan.pieces
        if piece.kind != "embed"
        for x in range(piece.area.left, piece.area.right)
        for y in range(piece.area.top, piece.area.bottom)
    }
    for piece in plan.pieces:
        zoom, across, down = tiles_below(piece)
        needs = max((end_of.get((zoom, x, y), 0) for x in across for y in down), default=0)
        assert piece.needs == needs <= piece.first
        assert needs or piece.kind == "read"


def test_windows_are_embedded_while_tiles_are_read():
    plan = Plan(LATTICE, (120.70, 24.25, 120.73, 24.28), LEVELS, 13, 18)
    kinds = [piece.kind for piece in plan.pieces]
    last_read = len(kinds) - 1 - kinds[::-1].index("read")
    assert kinds.index("embed") < len(kinds) / 10
    assert kinds[:last_read].count("embed") > 0.7 * kinds.count("embed")
    waits = [piece.first - piece.needs for piece in plan.pieces[:last_read] if piece.kind == "embed"]
    assert min(waits) > 0  # other pieces are between: nobody waits until one is stored


def test_it_goes_on_after_any_piece(plan):
    for number, piece in enumerate(plan.pieces):
        assert plan.after(piece.end) == plan.pieces[number + 1 :]
    assert plan.after(0) == plan.pieces
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
