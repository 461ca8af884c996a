"""Searches of the index, in all of the gallery or in some of its maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.geo import MEAN_RADIUS_M, Bounds, Circle, haversine_m, wrap_lon
from service.ground.index.protocol import NO_ID, VectorIndex
from service.ground.maps import GroundMap
from service.ground.windows import Ids, maps_of

MORE = 4
"""So many times as many are fetched when too few of them are of the maps that were asked for."""


@dataclass(frozen=True, eq=False)
class Found:
    """N ids, best first, and their scores."""

    ids: Ids
    scores: NDArray[np.float32]

    def take(self, rows: NDArray[np.intp]) -> Found:
        """Return some of them."""
        return Found(self.ids[rows], self.scores[rows])


def search(
    index: VectorIndex, embedding: NDArray[np.float32], k: int, area: Circle | None, maps: Sequence[GroundMap]
) -> Found:
    """Return the ``k`` best for one query ``[D]``; of these maps only, if any are given."""
    if not maps:
        return _best(index, embedding, k, area)
    parts = [_in_map(index, embedding, k, area or circle_round(each.bounds), each.number) for each in maps]
    ids = np.concatenate([part.ids for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    return Found(ids, scores).take(np.lexsort((ids, -scores))[:k])


def circle_round(bounds: Bounds) -> Circle:
    """Return a circle that holds bounds ``(west, south, east, north)``, a little wider."""
    west, south, east, north = bounds
    width = (east - west) % 360
    lat, lon = (south + north) / 2, float(wrap_lon(west + width / 2))
    # edges bulge towards the poles, so the middles of the northern and southern one count too
    lats, lons = np.array([north, north, south, south]), np.array([west, lon, west, lon])
    radius_m = float(haversine_m(lat, lon, lats, lons).max()) * 1.01 + 1000.0
    return Circle(lat, lon, min(radius_m, math.pi * MEAN_RADIUS_M))


def _in_map(index: VectorIndex, embedding: NDArray[np.float32], k: int, area: Circle, number: int) -> Found:
    """The ``k`` best windows of one map in ``area``: the index knows no maps, so more are fetched."""
    fetch = 2 * k
    while True:
        found = _best(index, embedding, fetch, area)
        ours = np.flatnonzero(maps_of(found.ids) == number)
        if len(ours) >= k or len(found.ids) < fetch:
            return found.take(ours[:k])
        fetch *= MORE


def _best(index: VectorIndex, embedding: NDArray[np.float32], k: int, area: Circle | None) -> Found:
    scores, ids = index.search(embedding[None], k, area)
    there = ids[0] != NO_ID
    return Found(ids[0][there], scores[0][there])
