"""What goes into a gallery and comes out of it: pictures, hits, pages, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.geo import Bounds
from service.ground.local_maps import LocalMap
from service.ground.tile import Tile


@dataclass(frozen=True, eq=False)
class NewTile:
    """A loose picture to store: what it is, and what is kept of its image.

    Attributes:
        embedding: float32 ``[D]``, unit L2 norm.
        image: a JPEG or WebP file.
        local: its local descriptors, None when the model gives none.
    """

    tile: Tile
    embedding: NDArray[np.float32]
    image: bytes
    local: LocalMap | None = None


@dataclass(frozen=True)
class Hit:
    """A tile that a search found: a window of a map, or a loose picture.

    Attributes:
        score: inner product of its embedding with the query's, -1 to 1.
        inliers: matches of local descriptors that agree on one position; None when it was not matched.
        map: name of the map; None for a loose picture.
        number: its id in the gallery; see ``windows.pack``.
    """

    tile: Tile
    score: float
    inliers: int | None = None
    map: str | None = None
    number: int = -1


@dataclass(frozen=True)
class GalleryInfo:
    """State of a gallery; ``bounds`` are ``(w, s, e, n)``, ``tile_side_m`` is the median. Both are None if empty."""

    count: int
    bounds: Bounds | None
    generation: int
    identity: str
    index: dict[str, Any]
    tile_side_m: float | None
    maps: int


@dataclass(frozen=True)
class Page:
    """Some of the tiles in an area, and the cursor of the next page, None at the end."""

    tiles: list[Tile]
    cursor: int | None
