"""Whatever a map comes as, opened as one mosaic of Web Mercator pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from service.geo import Bounds
from service.maps.gdal import open_raster
from service.maps.georeference import georeferenced
from service.maps.piece import Piece
from service.maps.pieces import Pieces, part_of
from service.maps.sidecars import in_folder

Scheme = Literal["xyz", "tms"]


class Mosaic(Protocol):
    """A map. One thread at a time.

    Attributes:
        name: suggested name: the file's without its suffix.
        bounds: ``(west, south, east, north)``, degrees.
        gsd_m: its own metres a pixel on the ground, at its centre.
        date: ISO date, when the source tells it.
    """

    name: str
    bounds: Bounds
    gsd_m: float
    date: str | None

    @property
    def notes(self) -> list[str]:
        """What the user should know, in sentences; they may grow while the mosaic is read."""

    def read(
        self, zoom: int, left: int, top: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB ``[H, W, 3]`` and which pixels are valid ``[H, W]`` of a rectangle of Web Mercator pixels.

        Args:
            zoom: of the pixels: a tile of 256 of them is an XYZ tile of this zoom.
            left: first pixel from 180° west, rightwards.
            top: first pixel from the north edge, downwards.
            width: of the rectangle; it may cross the antimeridian.
            height: of the rectangle.

        Returns:
            Pixels made of what is just fine enough, black where invalid.

        Raises:
            SourceUnreadable: the source is damaged.
        """

    def close(self) -> None:
        """Close the files."""


def open_mosaic(
    path: Path, *, name: str | None = None, scheme: Scheme | None = None, corners: Path | None = None
) -> Mosaic:
    """Open a map by what is in it, whatever it is called.

    Args:
        path: a file or a folder; see docs/maps.md for what it may be.
        name: what the user calls the file; its own name by default.
        scheme: how the rows of a pyramid of tiles are counted, where it does not say so itself: from the north (xyz,
            the default) or from the south (tms).
        corners: a JSON file with the corners of an image.

    Raises:
        SourceUnreadable, ArchiveRefused, UnsupportedMediaType, InvalidFootprint: it cannot be imported; says the fix.
    """
    name = name or Path(os.path.abspath(path)).name  # "." has no name

    def open_piece() -> Piece:
        dataset = open_raster(path, name)
        try:
            return Piece(path, name, dataset, georeferenced(dataset, name, corners, in_folder(path.parent), path.name))
        except BaseException:
            dataset.close()
            raise

    return Pieces([part_of(name, open_piece)], Path(name).stem)
