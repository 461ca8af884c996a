"""Vectors in a Milvus collection, which several services search together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from service.geo import MEAN_RADIUS_M, Circle
from service.ground.index.collection import MAX_ROWS, Collection, CollectionRows
from service.ground.index.keys import WindowKeys
from service.ground.index.protocol import NO_ID, Centres, Half, Ids, Vectors
from service.ground.vectors import lengths

SPARE = 32
"""So many rows are fetched beyond those asked for: equal scores come in an order of Milvus's own, and ours is by id."""

MORE = 4
"""So many times as many are fetched when too few lie in the circle, or too many belong to maps that the file does not
have."""

MARGIN_DEG = 1e-6
"""A circle's latitudes and longitudes are widened by this: a tenth of a metre, and far more than rounding takes."""


class MilvusIndex:
    """A ``VectorIndex`` whose vectors are rows of a collection.

    The graph that Milvus searches is approximate, and it sums in float32: a search finds nearly all of the exact
    answer, with scores that are right to some 1e-6. A write under way may be seen in part.

    Args:
        collection: open or about to be; its rows of other maps are passed over.
        keys: of the maps of the gallery.
    """

    def __init__(self, collection: Collection, keys: WindowKeys) -> None:
        self._collection, self._keys = collection, keys
        self._size = 0

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """See :meth:`VectorIndex.upsert`."""
        lengths(vectors)
        self._collection.put(self._keys.of(ids), vectors, centres)
        self.count()

    def delete(self, ids: Ids) -> None:
        """See :meth:`VectorIndex.delete`."""
        self._collection.remove(self._keys.of(np.unique(ids)))
        self.count()

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """See :meth:`VectorIndex.search`.

        Raises:
            IndexUnavailable: Milvus does not answer.
        """
        scores, ids = np.full((len(vectors), k), -np.inf, np.float32), np.full((len(vectors), k), NO_ID, np.int64)
        for row, query in enumerate(vectors):
            found, best = self._best(query, k, area)
            scores[row, : len(best)], ids[row, : len(best)] = found, best
        return scores, ids

    def count(self, area: Circle | None = None) -> int:
        """See :meth:`VectorIndex.count`."""
        if area is None:
            self._size = sum(self._collection.count(*self._keys.span(number)) for number in self._keys.maps)
            return self._size
        return sum(int(np.sum(self._ours(rows, area) != NO_ID)) for rows in self._boxed(area, *_latitudes(area)))

    def describe(self) -> dict[str, Any]:
        """See :meth:`VectorIndex.describe`; the size is that of the last count, for Milvus is not asked."""
        about = {"kind": "hnsw", "device": "milvus", "library": "milvus", "dim": self._collection.dim}
        return about | {"size": self._size, "collection": self._collection.name}

    def check(self) -> None:
        """See :meth:`VectorIndex.check`."""
        self._collection.check()

    def _best(self, query: Vectors, k: int, area: Circle | None) -> tuple[Vectors, Ids]:
        condition = "" if area is None else _box(area, *_latitudes(area))
        limit = k + SPARE
        while True:
            limit = min(limit, MAX_ROWS)
            rows = self._collection.search(query, limit, condition)
            ids = self._ours(rows, area)
            ours = np.flatnonzero(ids != NO_ID)
            if len(ours) >= k or len(rows.keys) < limit or limit == MAX_ROWS:
                order = np.lexsort((ids[ours], -rows.scores[ours]))[:k]
                return rows.scores[ours][order], ids[ours][order]
            limit *= MORE

    def _ours(self, rows: CollectionRows, area: Circle | None) -> Ids:
        """Ids of rows, ``NO_ID`` for those outside the circle and those of other maps."""
        ids = self._keys.ids(rows.keys)
        if area is not None:
            ids[~area.contains(*rows.centres.T)] = NO_ID
        return ids

    def _boxed(self, area: Circle, south: float, north: float) -> list[CollectionRows]:
        """All rows round a circle between two latitudes, which are halved while there are too many for one answer."""
        rows = self._collection.places(_box(area, south, north))
        if len(rows.keys) < MAX_ROWS or north - south < MARGIN_DEG:
            return [rows]
        middle = (south + north) / 2
        return self._boxed(area, south, middle) + self._boxed(area, middle, north)


def _latitudes(area: Circle) -> tuple[float, float]:
    reach_deg = math.degrees(area.radius_m / MEAN_RADIUS_M) + MARGIN_DEG
    return area.lat - reach_deg, area.lat + reach_deg


def _box(area: Circle, south: float, north: float) -> str:
    """The condition that latitudes lie from ``south`` to below ``north``, and longitudes in those of the circle.

    A circle reaches asin(sin r / cos φ) east and west, or all the way round if a pole is in it: spherical trigonometry
    (J. Snyder, Map Projections: A Working Manual, 1987, p. 30), with r as an angle and φ its centre's latitude.
    """
    condition = f"lat >= {south:.9f} and lat < {north:.9f}"
    reach = area.radius_m / MEAN_RADIUS_M
    if math.radians(abs(area.lat)) + reach >= math.pi / 2 - math.radians(MARGIN_DEG):
        return condition
    half_deg = math.degrees(math.asin(math.sin(reach) / math.cos(math.radians(area.lat)))) + MARGIN_DEG
    west, east = area.lon - half_deg, area.lon + half_deg
    spans = [(west, east)]
    if west < -180:
        spans = [(west + 360, 180.0), (-180.0, east)]
    elif east > 180:
        spans = [(west, 180.0), (-180.0, east - 360)]
    either = " or ".join(f"(lon >= {low:.9f} and lon <= {high:.9f})" for low, high in spans)
    return f"{condition} and ({either})"
