"""Local descriptors as a gallery keeps them: whole numbers of eight bits, a quarter of what the model gives."""

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

LocalMap = NDArray[np.int8]
"""The descriptors of a tile's positions are ``[C, h, w]``: unit vectors over C times ``SCALE``."""

SCALE = 127.0

CACHED_BYTES = 2**26
"""So much of the descriptors of loose pictures that were asked for last is kept at hand: 1,300 pictures of the default
model."""

_SHAPE = struct.Struct("<3H")


def to_int8(local: NDArray[np.float32]) -> LocalMap:
    """Round unit vectors ``[C, h, w]`` to 1/127: each component is off by at most 1/254, a cosine by ``√C / 254``."""
    rounded: LocalMap = np.rint(np.clip(local, -1, 1) * SCALE).astype(np.int8)
    return rounded


def pack(local: LocalMap) -> bytes:
    """Return the bytes that are stored: C, h and w as little-endian uint16, then the values."""
    return _SHAPE.pack(*local.shape) + local.tobytes()


def unpack(data: bytes) -> LocalMap:
    """Return the inverse of :func:`pack`; the array is read-only.

    Raises:
        ValueError: the data is not what ``pack`` writes.
    """
    if len(data) < _SHAPE.size:
        raise ValueError("its descriptors are cut off")
    return np.frombuffer(data, np.int8, offset=_SHAPE.size).reshape(_SHAPE.unpack_from(data))


class LocalCache:
    """Descriptors of loose pictures, from memory where they were asked for before. Safe to use from several threads.

    Args:
        read: the stored ones among those of these numbers.
    """

    def __init__(self, read: Callable[[Sequence[int]], dict[int, LocalMap]]) -> None:
        self._read = read
        self._kept: OrderedDict[int, LocalMap] = OrderedDict()
        self._changes = 0  # what was read before one is not kept after it
        self._lock = threading.Lock()

    def get(self, numbers: Sequence[int]) -> dict[int, LocalMap]:
        """Return those that there are, by number."""
        with self._lock:
            changes = self._changes
            maps = {number: self._kept[number] for number in numbers if number in self._kept}
        if missing := [number for number in numbers if number not in maps]:
            maps |= self._read(missing)
        with self._lock:
            if self._changes == changes:
                for number, local in maps.items():
                    self._kept[number] = local
                    self._kept.move_to_end(number)
                    while len(self._kept) * local.nbytes > CACHED_BYTES:  # those of one model are all of one size
                        self._kept.popitem(last=False)
        return maps

    def forget(self, numbers: Sequence[int]) -> None:
        """Drop what was written or deleted."""
        with self._lock:
            self._changes += 1
            for number in numbers:
                self._kept.pop(number, None)
