"""Local descriptors as a gallery keeps them: whole numbers of eight bits, a quarter of what the model gives."""

import struct

import numpy as np
from numpy.typing import NDArray

LocalMap = NDArray[np.int8]
"""Descriptors of a tile's positions, ``[C, h, w]``: unit vectors over C times ``SCALE``."""

SCALE = 127.0

_SHAPE = struct.Struct("<3H")


def to_int8(local: NDArray[np.float32]) -> LocalMap:
    """Round unit vectors ``[C, h, w]`` to 1/127: each component is off by at most 1/254, a cosine by ``√C / 254``."""
    rounded: LocalMap = np.rint(np.clip(local, -1, 1) * SCALE).astype(np.int8)
    return rounded


def pack(local: LocalMap) -> bytes:
    """The bytes that are stored: C, h and w as little-endian uint16, then the values."""
    return _SHAPE.pack(*local.shape) + local.tobytes()


def unpack(data: bytes) -> LocalMap:
    """The inverse of :func:`pack`; the array is read-only.

    Raises:
        ValueError: the data is not what ``pack`` writes.
    """
    if len(data) < _SHAPE.size:
        raise ValueError("its descriptors are cut off")
    return np.frombuffer(data, np.int8, offset=_SHAPE.size).reshape(_SHAPE.unpack_from(data))
