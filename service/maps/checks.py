"""What an import says of a map before it reads it: refusals with their fix, and notes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import SourceUnreadable
from service.maps.piece import Piece
from service.maps.rendering import Stretch
from service.maps.survey import Survey

COARSE_M, FINE_M = 2.0, 0.02
"""A photo from 400 m covers 500 m of ground: 224 pixels of 2 m. Below 2 cm nothing more is seen from 40 m."""

MIN_CONTRAST = 1.5
"""Standard deviation of brightness, of 255: less is compression's own noise."""

SPARSE_SHARE = 0.2
"""A map of which less shows anything deserves a sentence."""


def notes_on(looks: Sequence[tuple[Piece, Survey]], stretch: Stretch | None) -> list[str]:
    """Judge rasters by the samples of them.

    Raises:
        SourceUnreadable: nothing in any of them has any contrast.
    """
    notes = []
    shown, contrasts = [], []
    for piece, seen in looks:
        valid = _without_collar(piece, seen)
        shown.append(valid.mean())
        contrasts.append(_contrast(piece, seen, valid, stretch))
        notes += _of_one(piece)
    name = looks[0][0].name if len(looks) == 1 else f"the {len(looks)} rasters from {looks[0][0].name} on"
    if max(contrasts) < MIN_CONTRAST:
        raise SourceUnreadable(
            f"{name} shows nothing: wherever it was looked at it is empty or of one colour. Check the file in a "
            "viewer, and export the picture itself."
        )
    if (share := float(np.mean(shown))) < SPARSE_SHARE:
        notes.append(f"{name} is mostly empty: about {max(share, 0.001):.1%} of its area shows anything.")
    return list(dict.fromkeys(notes))


def gsd_note(name: str, gsd_m: float) -> list[str]:
    """Say if a map is far from what drones see."""
    if gsd_m > COARSE_M:
        return [
            f"{name} has {gsd_m:.3g} m a pixel, which is coarser than drones see: photos from below "
            f"{round(250 * gsd_m, -2):.0f} m will hardly be found. Use a finer map, of 0.1 to 1 m."
        ]
    if gsd_m < FINE_M:
        return [f"{name} has {100 * gsd_m:.2g} cm a pixel, finer than photos from the air show; it is read coarser."]
    return []


def _of_one(piece: Piece) -> list[str]:
    notes = [piece.place.note] if piece.place.note else []
    if piece.collar is not None:
        value = ", ".join(f"{v:g}" for v in piece.collar.value.tolist())
        notes.append(
            f"{piece.collar.share:.0%} of {piece.name} is one flat colour ({value}) from its edge inwards: taken for "
            f"fill, and left out. To declare it: gdal_edit.py -a_nodata {piece.collar.value[0]:g} {piece.name}"
        )
    return notes + gsd_note(piece.name, piece.gsd_m)


def _without_collar(piece: Piece, seen: Survey) -> NDArray[np.bool_]:
    """Which pixels of the samples count."""
    if piece.collar is None:
        return seen.valid
    value = piece.collar.value[:, None, None, None, None].astype(float)
    fill = (np.abs(seen.bands - value) <= piece.collar.tolerance).all(axis=0)
    return np.asarray(seen.valid & ~(fill & piece.collar.cells[:, :, None, None]))


def _contrast(piece: Piece, seen: Survey, valid: NDArray[np.bool_], stretch: Stretch | None) -> float:
    """Standard deviation of brightness over all samples, of 255."""
    bright = piece.rendering.rgb(seen.bands, stretch).mean(axis=0)[valid]
    return float(bright.std()) if bright.size else 0.0
