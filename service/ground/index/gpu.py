"""Exact search on a GPU, and the choice between it and the CPU.

FAISS's GPU indexes cannot delete, and ignore id selectors without a word (facebookresearch/faiss issues 107, 3924).
So the CPU index stays the master copy. The GPU holds a copy of some moment; what has changed since is left out of its
answers and searched in the master, and when that is much, a new copy is made in the background and swapped in. A GPU
that fails or hangs costs nobody an answer: its copy is dropped, and the master has everything.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np

from service.errors import DeviceUnavailable
from service.geo import Circle
from service.ground.index.exact import SPARE_CANDIDATES, FaissIndex, load_faiss, rounding_bound
from service.ground.index.protocol import NO_ID, Centres, Half, Ids, VectorIndex, Vectors
from service.ground.index.tiered import USUAL_K, TieredIndex

log = logging.getLogger(__name__)

MAX_FETCH = 2048
"""FAISS's selection on a GPU has no larger k."""

REBUILD_AT = 512
"""So many changes start a new copy: leaving them out, a search for the best 100 fetches well below MAX_FETCH."""

SCRATCH_BYTES = 64 * 2**20
"""FAISS reserves so much GPU memory for itself; its default of 1.5 GB, twice during a swap, is what the model needs."""


SEARCH_TIMEOUT_S = 3.0
"""A search takes milliseconds; one that hangs leaves the CPU time to answer within the default deadline of 10 s."""


@dataclass(frozen=True)
class _Copy:
    """A flat index on the GPU (None: empty) and the ids of its vectors, in its order."""

    ids: Ids
    index: Any = None


class FaissGpuIndex:
    """A ``VectorIndex`` that searches everything on a GPU and areas on the CPU; exact.

    Args:
        dim: dimensions of the vectors.
        gpu: number of the GPU.
        to_gpu: copies a flat CPU index to the GPU; another one makes the same logic run elsewhere.
        rebuild_at: changes since the last copy that start a new one.
    """

    def __init__(
        self, dim: int, gpu: int = 0, to_gpu: Callable[[Any], Any] | None = None, rebuild_at: int = REBUILD_AT
    ) -> None:
        self._master = FaissIndex(dim)
        self._dim = dim
        self._gpu = gpu
        self._to_gpu = to_gpu or partial(copy_to_gpu, gpu=gpu)
        self._rebuild_at = self._rebuild_next_at = rebuild_at
        self._copy = _Copy(np.empty(0, np.int64))
        self._changed: set[int] = set()  # ids that may differ between the copy and the master
        self._changed_later: set[int] = set()  # those since the snapshot of the copy that is being made
        self._rebuilding = False
        self._lock = threading.Lock()
        self._searcher = _Searcher()

    def upsert(self, ids: Ids, vectors: Half, centres: Centres) -> None:
        """See :meth:`VectorIndex.upsert`."""
        with self._lock:
            self._master.upsert(ids, vectors, centres)
            self._note(ids)

    def delete(self, ids: Ids) -> None:
        """See :meth:`VectorIndex.delete`."""
        with self._lock:
            self._master.delete(ids)
            self._note(ids)

    def search(self, vectors: Vectors, k: int, area: Circle | None = None) -> tuple[Vectors, Ids]:
        """See :meth:`VectorIndex.search`."""
        queries = np.ascontiguousarray(vectors, np.float32)
        answer = None
        if area is None and len(queries):
            with self._lock:
                answer = self._search_copy(queries, k)
        return self._master.search(queries, k, area) if answer is None else answer  # which waits for no GPU

    def check(self) -> None:
        """See :meth:`VectorIndex.check`; it is in this process."""

    def count(self, area: Circle | None = None) -> int:
        """See :meth:`VectorIndex.count`."""
        return self._master.count(area)

    def describe(self) -> dict[str, Any]:
        """See :meth:`VectorIndex.describe`.

        ``device`` is where a photo's search without an area runs now: the GPU, or the CPU while there is no copy of the
        tiles or too much has changed since. ``gpu`` is where copies go, ``copied`` the vectors that are there, and
        ``changed`` the ids since.
        """
        gpu = f"cuda:{self._gpu}"
        # without the lock, which a search may hold for as long as a GPU hangs: each number is right, of about now
        state = {"copied": len(self._copy.ids), "changed": len(self._changed), "rebuilding": self._rebuilding}
        device = gpu if self._fetch(USUAL_K) else "cpu"
        return self._master.describe() | {"device": device, "gpu": gpu} | state

    def _note(self, ids: Ids) -> None:
        self._changed.update(ids.tolist())
        self._changed_later.update(ids.tolist())
        if len(self._changed) > self._rebuild_next_at and not self._rebuilding:
            self._rebuilding = True
            threading.Thread(target=self._rebuild, name="gpu-rebuild", daemon=True).start()

    def _rebuild(self) -> None:
        """Make new copies until few changes are left; meanwhile the old one answers."""
        more = True
        while more:
            started = time.monotonic()
            try:
                with self._lock:
                    ids, flat = self._master.snapshot()
                    self._changed_later = set()
                index = self._to_gpu(flat)
            except Exception:  # FAISS raises bare RuntimeErrors, most often because the memory is full
                log.exception("the gallery does not fit on GPU %d; what changed is searched on the CPU", self._gpu)
                with self._lock:
                    self._rebuilding = False
                    self._wait_for_twice_the_changes()
                return
            with self._lock:
                self._copy, self._changed = _Copy(ids, index), set(self._changed_later)
                self._rebuild_next_at = self._rebuild_at
                more = self._rebuilding = len(self._changed) > self._rebuild_at
            if more:
                time.sleep(time.monotonic() - started)  # during an import, at most half of the time goes into copies

    def _wait_for_twice_the_changes(self) -> None:
        """Do not try a GPU that failed again at every write."""
        self._rebuild_next_at = max(self._rebuild_at, 2 * len(self._changed))

    def _fetch(self, k: int) -> int:
        """Vectors to ask the copy for, so that ``k`` are left when what has changed is taken out; 0: ask the master."""
        fetch = min(k + SPARE_CANDIDATES + len(self._changed), len(self._copy.ids))
        return fetch if fetch <= MAX_FETCH else 0

    def _search_copy(self, queries: Vectors, k: int) -> tuple[Vectors, Ids] | None:
        """Search the GPU's copy and what has changed since; None when that cannot be exact, or the GPU fails."""
        copied, changed = self._copy, np.fromiter(self._changed, np.int64, len(self._changed))
        fetch = self._fetch(k)
        if not fetch:
            return None
        try:
            rough, positions = self._searcher.start(copied.index.search, queries, fetch).result(SEARCH_TIMEOUT_S)
            found = copied.ids[positions]
        except Exception:  # bare RuntimeErrors again, and TimeoutError
            log.exception("GPU %d failed in a search; the CPU searches until many tiles have changed", self._gpu)
            self._drop_copy()
            return None
        stale = np.isin(found, changed)
        if fetch < len(copied.ids) and not self._complete(rough, stale, k):
            return None
        fresh = np.tile(self._master.known(changed), (len(queries), 1))
        padding = np.full((len(queries), k), NO_ID, np.int64)  # there may be fewer than k
        candidates = np.concatenate([np.where(stale, NO_ID, found), fresh, padding], axis=1)
        return self._master.best_among(queries, k, candidates)

    def _drop_copy(self) -> None:
        """Search in the master alone from now on; what is in the copy counts as changed, for the next one."""
        self._changed.update(self._copy.ids.tolist())
        self._copy = _Copy(np.empty(0, np.int64))
        self._searcher = _Searcher()  # the old one may hang for ever
        self._wait_for_twice_the_changes()

    def _complete(self, rough: Vectors, stale: np.ndarray[Any, np.dtype[np.bool_]], k: int) -> bool:
        """Whether nothing that was not fetched can reach rank ``k``, whatever order the GPU summed in."""
        live = -np.sort(np.where(stale, np.inf, -rough), axis=1)[:, k - 1]
        return bool(np.all(rough[:, -1] < live - rounding_bound(self._dim)))


class _Searcher:
    """One thread for all searches, because FAISS's GPU indexes are not safe from several.

    A daemon, so that a call that hangs inside the driver does not keep the process from ending.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=_run_all, args=(self._calls,), name="gpu-search", daemon=True).start()

    def __del__(self) -> None:
        self._calls.put(None)  # the end of the thread

    def start(self, search: Callable[[Vectors, int], tuple[Vectors, Ids]], queries: Vectors, k: int) -> Future[Any]:
        """Search behind those that were started before."""
        answer: Future[Any] = Future()

        def call() -> None:
            try:
                answer.set_result(search(queries, k))
            except BaseException as error:  # whatever it is, it is for whoever waits
                answer.set_exception(error)

        self._calls.put(call)
        return answer


def _run_all(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()


def copy_to_gpu(flat: Any, gpu: int) -> Any:
    """Copy a flat CPU index to a GPU, with resources of its own so that two copies never meet in one stream."""
    faiss = load_faiss()
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(SCRATCH_BYTES)
    return faiss.index_cpu_to_gpu(resources, gpu, flat)  # which shares the ownership of its resources


def make_index(dim: int, device: str) -> VectorIndex:
    """Return the index for a device.

    Args:
        dim: dimensions of the vectors.
        device: ``cpu``, ``cuda`` or ``auto`` (a GPU if FAISS can use it), with the number of a GPU as in ``cuda:1``.

    Raises:
        DeviceUnavailable: the GPU was asked for and cannot be used, or FAISS is not installed.
    """
    kind, _, number = device.partition(":")
    gpu = int(number or 0)
    if kind == "cpu" or (kind == "auto" and not _has_gpu_build()):
        return TieredIndex(dim)
    try:
        _check_gpu(gpu)
    except DeviceUnavailable as error:
        if kind == "cuda":
            raise
        log.info("search runs on the CPU: %s", error.detail)
        return TieredIndex(dim)
    return FaissGpuIndex(dim, gpu)


def _has_gpu_build() -> bool:
    return hasattr(load_faiss(), "StandardGpuResources")


def _check_gpu(gpu: int) -> None:
    """Search one vector on the GPU, so that what is missing is found at the start and not by the first request."""
    faiss = load_faiss()
    fix = "Or set AEROFIX_INDEX_DEVICE=cpu."
    if not _has_gpu_build():
        raise DeviceUnavailable(
            "the index was to run on CUDA but this FAISS is the CPU build; `pip uninstall faiss-cpu`, then "
            f"`pip install 'aerofix[gpu]'`. {fix}"
        )
    try:
        there = faiss.get_num_gpus()
        if there > gpu:
            flat = faiss.IndexFlatIP(1)
            flat.add(np.ones((1, 1), np.float32))
            copy_to_gpu(flat, gpu).search(np.ones((1, 1), np.float32), 1)
            return
        reason = f"FAISS sees {there} GPUs"
    except RuntimeError as error:
        reason = f"FAISS cannot use it ({error})"
    raise DeviceUnavailable(
        f"the index was to run on GPU {gpu} but {reason}. Run `nvidia-smi`: it must list the GPU and CUDA 12.6 or "
        f"newer, in a container too (`docker run --gpus all`). {fix}"
    )
