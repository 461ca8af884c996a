"""The index on a CPU: exact while a gallery is small, by short codes first when it is large.

Codes give some thousand candidates, and these are compared themselves, as the exact index does it. How many it takes is
measured on each gallery, and one where that is too many stays exact. Codes are made in the background, after a gallery
was opened and while it grows; all that has none yet is compared itself, and so is everything in an area. They are never
stored: to make those of a million takes some 30 seconds of a core, in which the exact index answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from service.geo import Circle
from service.ground.index.codes import Coder, Codes
from service.ground.index.exact import FaissIndex, Part, load_faiss
from service.ground.index.protocol import Centres, Half, Ids, Vectors
from service.ground.index.rows import Sizes, Version
from service.ground.vectors import unit
from service.memory import give_back

log = logging.getLogger(__name__)

CODES_FROM = 100_000
"""From so many vectors on codes are quicker, by half or more (``benchmarks/index.py``)."""

UNCODED = 16_384
"""So many vectors without codes start the next coding: to compare them takes a millisecond or two."""

LEARN_AGAIN = 4
"""Codes are learnt again when there are so many times as many vectors as they were learnt from."""

BULK = 4096
"""So many vectors written at once mean that a gallery is being opened: codes wait until that is over."""

WANTED_RECALL = 0.99
"""Codes have to find this share of the exact answer, of the best ``USUAL_K``."""

USUAL_K = 128
"""A photo is compared with so many windows (``localization/glance.py``)."""

LEAST = 1536
"""A search for few has so many candidates, for it also has its neighbours to find. Of the best ten for 150 made photos
in a million windows 0.996 were among them; 0.993 were among 1,024, and 0.998 among 3,072, which take a fifth longer."""

CANDIDATES = (64, 128)
"""For each vector that is asked for there are so many candidates; the first number that finds enough is taken. With 32
a million passed the measure, and photos that are unlike all windows found 0.96."""

PROBES, SAMPLE = 32, 1024
"""Recall is measured with so many queries, which are made of half of so many windows."""


class TieredIndex:
    """A ``VectorIndex`` on a CPU, exact up to ``codes_from`` vectors and in areas.

    Above, a search finds ``WANTED_RECALL`` or more of the exact answer, with exact scores, and what was written last is
    found by the next search. Where thousands of vectors are the same, it finds some of them.

    Args:
        dim: dimensions of the vectors.
        codes_from: vectors from which codes are made.
        uncoded: vectors without codes that start the next coding.
        settle_s: time after the last writing in bulk until codes are made.
        sizes: of what is in memory.
    """

    def __init__(
        self,
        dim: int,
        codes_from: int = CODES_FROM,
        uncoded: int = UNCODED,
        settle_s: float = 5.0,
        sizes: Sizes = Sizes(),
    ) -> None:
        self._exact = FaissIndex(dim, sizes)
        self._codes_from, self._uncoded, self._settle_s = codes_from, uncoded, settle_s
        self._codes: Codes | None = None
        self._a_k, self._recall = 0, 0.0
        self._coder: Coder | None = None
        self._coding = False
        self._bulk_at = -settle_s
        self._lock = threading.Lock()  # of the flag above: one thread makes codes

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """See :meth:`VectorIndex.upsert`."""
        self._exact.upsert(ids, vectors, centres)
        if len(ids) >= BULK:
            self._bulk_at = time.monotonic()
        self._note()

    def delete(self, ids: Ids) -> None:
        """See :meth:`VectorIndex.delete`."""
        self._exact.delete(ids)
        self._note()

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """See :meth:`VectorIndex.search`."""
        codes, version, count = self._codes, self._exact.version, max(self._a_k * k, LEAST)
        if area is not None or codes is None or codes.moved != version.moved or count > codes.upto // 4:
            return self._exact.search(vectors, k, area)
        return self._exact.answers(version, vectors, k, partial(self._parts, codes, version, count=count))

    def check(self) -> None:
        """See :meth:`VectorIndex.check`; it is in this process."""

    def count(self, area: Circle | None = None) -> int:
        """See :meth:`VectorIndex.count`."""
        return self._exact.count(area)

    def describe(self) -> dict[str, Any]:
        """See :meth:`VectorIndex.describe`.

        Where there are codes: of how many vectors, how many candidates they give for each that is asked for, and the
        recall that was measured with them.
        """
        codes, about = self._codes, self._exact.describe()
        if codes is None or codes.moved != self._exact.version.moved:
            return about
        return about | {"kind": "codes", "coded": codes.upto, "candidates": self._a_k, "recall": self._recall}

    def _parts(self, codes: Codes, version: Version, query: Vectors, count: int) -> Iterator[Part]:
        """What is compared: candidates, and what has no codes yet; all, where most candidates were deleted."""
        slots = codes.candidates(query, count)
        alive = slots[version.alive[slots]]
        if len(alive) < len(slots) / 2:
            yield from self._exact.all(version)
            return
        yield from self._exact.some(version, np.sort(alive))
        yield from self._exact.all(version, first=codes.upto)

    def _note(self) -> None:
        with self._lock:
            if not self._coding and self._is_behind():
                self._coding = True
                threading.Thread(target=self._code, name="index-codes", daemon=True).start()

    def _is_behind(self) -> bool:
        version, codes = self._exact.version, self._codes
        if version.live < self._codes_from:
            return False
        if codes is None or codes.moved != version.moved:
            return True
        return version.used - codes.upto >= max(self._uncoded, codes.upto // 64)

    def _code(self) -> None:
        """Make codes until few vectors have none."""
        more = True
        while more:
            self._settle()
            try:
                self._codes = self._made()
            except Exception:  # most often because the memory is full
                log.exception("no codes of the gallery could be made; searches compare with every vector")
                self._codes = None
            with self._lock:
                if self._codes is None:
                    self._codes_from = 2 * self._exact.version.live  # not again at every write
                more = self._coding = self._is_behind()
        give_back()

    def _settle(self) -> None:
        while (left_s := self._bulk_at + self._settle_s - time.monotonic()) > 0:
            time.sleep(left_s)

    def _made(self) -> Codes | None:
        """Codes of all there is now; None where they would not do."""
        version, coder = self._exact.version, self._coder
        if coder is not None and coder.moved == version.moved and version.live <= LEARN_AGAIN * coder.learnt_from:
            return coder.codes(version)
        self._coder = None  # its memory is free before the next takes as much
        coder = Coder(load_faiss(), version)
        codes = coder.codes(version)
        self._a_k, self._recall = self._measured(codes, version)
        if self._recall < WANTED_RECALL:
            log.warning("codes find %.1f %% in this gallery: searches compare with every vector", 100 * self._recall)
            return None
        self._coder = coder
        return codes

    def _measured(self, codes: Codes, version: Version) -> tuple[int, float]:
        """The candidates that it takes for each vector that is asked for, and the recall with them."""
        queries = _probes(version)
        _, exact = self._exact.answers(version, queries, USUAL_K, lambda _: self._exact.all(version))
        for a_k in CANDIDATES:
            _, found = self._exact.answers(
                version, queries, USUAL_K, partial(self._parts, codes, version, count=a_k * USUAL_K)
            )
            recall = float(np.mean([np.isin(row, others).mean() for row, others in zip(exact, found, strict=True)]))
            if recall >= WANTED_RECALL:
                break
        return a_k, recall


def _probes(version: Version) -> Vectors:
    rng = np.random.default_rng(1)
    live = np.flatnonzero(version.alive[: version.used])
    return probes(unit(version.take(np.sort(rng.choice(live, min(2 * SAMPLE, len(live)), replace=False)))), rng)


def probes(some: Vectors, rng: np.random.Generator) -> Vectors:
    """Make queries like photos of windows ``[N, D]``: each is turned away from one until their cosine is 0.6."""
    windows = some[rng.choice(len(some), PROBES)]
    away = rng.normal(size=(PROBES, len(some))).astype(np.float32) @ (some - some.mean(axis=0))
    away -= (away * windows).sum(axis=1, keepdims=True) * windows
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    return np.asarray(0.6 * windows + 0.8 * away, np.float32)
