"""The index of a service whose gallery file is a copy, and whose vectors are in Milvus for all such services."""

from __future__ import annotations

import numpy as np

from service.errors import GalleryReadOnly, GalleryUnusable
from service.ground.index.collection import Collection
from service.ground.index.keys import WindowKeys
from service.ground.index.milvus import MilvusIndex
from service.ground.index.protocol import Centres, Half, Ids, VectorIndex
from service.ground.store.store import Store
from service.ground.vectors import unit
from service.ground.windows import maps_of

SAMPLES = 32
"""So many windows of the file must find themselves before the service is ready."""

SAMPLES_AT_ONCE = 4
"""So many windows of each batch that is read may be among them."""

SAME = 0.999
"""A window has at least this cosine with itself; rounding takes 1e-6 of it, and another window is hardly ever so
near."""

HOW = "Copy the file to Milvus (aerofix gallery copy FILE URI), or give the service the file that was copied."


class SharedIndex(MilvusIndex):
    """A :class:`MilvusIndex` that changes nothing: what a gallery adds to it while it loads must be there already.

    Args:
        collection: of the gallery's model.
        keys: of the gallery's maps.
    """

    def __init__(self, collection: Collection, keys: WindowKeys) -> None:
        super().__init__(collection, keys)
        self._listed: dict[int, int] = {}
        self._samples: list[Half] = []
        self._checked = False
        self._rng = np.random.default_rng(0)

    @classmethod
    def of(cls, collection: Collection, store: Store) -> VectorIndex:
        """Return the index of the maps of a gallery file that are searched."""
        return cls(collection, WindowKeys.of_maps(each for each in store.maps.all() if each.live))

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """Note windows that the file lists; :meth:`check` looks whether Milvus has them.

        Raises:
            GalleryUnusable: they are no windows of maps.
        """
        numbers, counts = np.unique(maps_of(ids), return_counts=True)
        if 0 in numbers:
            raise GalleryUnusable(
                "The gallery has single pictures, which are not searched in Milvus; delete them, or add them as a map."
            )
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._listed[number] = self._listed.get(number, 0) + count
        self._samples.append(vectors[self._rng.integers(len(vectors), size=SAMPLES_AT_ONCE)])

    def delete(self, ids: Ids) -> None:
        """Refuse.

        Raises:
            GalleryReadOnly: always.
        """
        raise GalleryReadOnly(f"the windows of this gallery are in Milvus, for several services. {HOW}")

    def check(self) -> None:
        """See :meth:`VectorIndex.check`; the first time, also compare what Milvus has with what the file lists.

        Raises:
            GalleryUnusable: it is not the same.
        """
        if self._checked:
            super().check()
            return
        self._collection.open()
        self._collection.settle()
        self._size = 0
        for number in self._keys.maps:
            held, listed = self._collection.count(*self._keys.span(number)), self._listed.get(number, 0)
            if held != listed:
                raise GalleryUnusable(f"Milvus holds {held} windows of a map of which the file lists {listed}. {HOW}")
            self._size += held
        samples = np.concatenate([np.empty((0, self._collection.dim), np.float16), *self._samples])
        samples = unit(samples[self._rng.permutation(len(samples))[:SAMPLES]])
        if len(samples) and self.search(samples, 1)[0].min() < SAME:
            raise GalleryUnusable(f"Milvus does not find windows that the file lists. {HOW}")
        self._samples = []
        self._checked = True
