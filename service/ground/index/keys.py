"""Keys of windows that hold outside one gallery file.

A window's id begins with the number that its map has in one file, and other files number other maps alike. Its key is
29 hexadecimal digits: 16 of a hash of what makes a map itself, and 13 of zoom, row and column. So two files never mean
different windows by one key, whoever writes first, and keys sort as ids do within a map.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from service.ground.index.protocol import NO_ID
from service.ground.maps import GroundMap
from service.ground.windows import Ids, maps_of, range_of

CELL_DIGITS = 13
"""Zoom, row and column take so many hexadecimal digits: the 52 bits of an id below its map."""

_CELL = (1 << (4 * CELL_DIGITS)) - 1


class WindowKeys:
    """Translates between ids of one gallery file and keys.

    Args:
        maps: what each map's keys begin with, 16 hexadecimal digits, by its number in the file.
    """

    def __init__(self, maps: Mapping[int, str]) -> None:
        self.maps = dict(maps)
        self._numbers = {digest: number for number, digest in self.maps.items()}

    @classmethod
    def of_maps(cls, maps: Iterable[GroundMap]) -> WindowKeys:
        """Return the keys of a file's maps."""
        return cls({each.number: digest_of(each) for each in maps})

    def of(self, ids: Ids) -> list[str]:
        """Return the keys of ids; their maps are known."""
        pairs = zip(maps_of(ids).tolist(), (ids & _CELL).tolist(), strict=True)
        return [f"{self.maps[number]}{cell:0{CELL_DIGITS}x}" for number, cell in pairs]

    def ids(self, keys: Sequence[str]) -> Ids:
        """Return ids of keys, ``NO_ID`` for windows of maps that the file does not have."""
        known = ((self._numbers.get(key[:-CELL_DIGITS]), key[-CELL_DIGITS:]) for key in keys)
        found = [NO_ID if number is None else range_of(number)[0] | int(cell, 16) for number, cell in known]
        return np.array(found, np.int64)

    def span(self, number: int) -> tuple[str, str]:
        """Return the first key that a window of a map can have, and the one behind the last."""
        first = int(self.maps[number], 16) << (4 * CELL_DIGITS)
        return padded(first), padded(first + _CELL + 1)


def padded(key: int) -> str:
    """Return a key from its number."""
    return f"{key:029x}"


def digest_of(known: GroundMap) -> str:
    """Tell what keys of a map begin with: a hash of what stays the same when the map grows or its file is copied."""
    told = [known.name, known.origin, known.created_at, known.gsd_m, known.date]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
