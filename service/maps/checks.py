"""What an import says of a map before it reads it: refusals with their fix, and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import SourceUnreadable
from service.maps.piece import Piece
from service.maps.survey import Survey

COARSE_M, FINE_M = 2.0, 0.02
"""A photo from 400 m covers 500 m of ground: 224 pixels of 2 m. Below 2 cm nothing more is seen from 40 m."""

COARSEST_M = 30.0
"""Such a map's smallest windows are 7 km wide, as what photos from an airliner show."""

MIN_CONTRAST = 1.5
"""A smaller standard deviation of brightness, of 255, is compression's own noise."""

SPARSE_SHARE = 0.2
"""A map of which less shows anything deserves a sentence."""


def notes_on(looks: Sequence[tuple[Piece, Survey]]) -> list[str]:
    """Judge rasters by the samples of them.

    Raises:
        SourceUnreadable: nothing in any of them has any contrast.
    """
    shown, contrasts = [], []
    for piece, seen in looks:
        valid = _without_collar(piece, seen)
        shown.append(valid.mean())
        contrasts.append(_contrast(piece, seen, valid))
    notes = [note for say in (_place_note, _kind_note, _collar_note, _gsd_note) for note in _said_once(say, looks)]
    name = looks[0][0].name if len(looks) == 1 else f"the {len(looks)} rasters from {looks[0][0].name} on"
    if max(contrasts) < MIN_CONTRAST:
        raise SourceUnreadable(
            f"{name} shows nothing: wherever it was looked at it is empty or of one colour. Check the file in a "
            "viewer, and export the picture itself."
        )
    if (share := float(np.mean(shown))) < SPARSE_SHARE:
        notes.append(f"{name} is mostly empty: about {max(share, 0.001):.1%} of its area shows anything.")
    return notes


def gsd_note(name: str, gsd_m: float) -> list[str]:
    """Say if a map is far from what drones see.

    Raises:
        SourceUnreadable: it is so coarse that nothing with wings but a satellite takes such pictures.
    """
    if gsd_m > COARSEST_M:
        raise SourceUnreadable(
            f"{name} has {gsd_m:.3g} m a pixel; photos from the air are found in maps of 0.1 to 1 m, and never in "
            f"those of over {COARSEST_M:.0f} m. Use a finer map; or, if it is finer, correct its georeference.",
            limit=COARSEST_M,
            actual=gsd_m,
        )
    if gsd_m > COARSE_M:
        return [
            f"{name} has {gsd_m:.3g} m a pixel, which is coarser than drones see: photos from below "
            f"{round(250 * gsd_m, -2):.0f} m will hardly be found. Use a finer map, of 0.1 to 1 m."
        ]
    if gsd_m < FINE_M:
        return [f"{name} has {100 * gsd_m:.2g} cm a pixel, finer than photos from the air show; it is read coarser."]
    return []


def _said_once(say: Callable[[Piece], str], looks: Sequence[tuple[Piece, Survey]]) -> list[str]:
    """What there is to say of one kind: of the first raster in words, of the others their number."""
    said = [text for piece, _ in looks if (text := say(piece))]
    more = f" The same goes for {len(said) - 1} other rasters of it that were looked at." if len(said) > 1 else ""
    return [said[0] + more] if said else []


def _place_note(piece: Piece) -> str:
    return piece.place.note


def _kind_note(piece: Piece) -> str:
    if not piece.is_numbers:
        return ""
    return (
        f"{piece.name} is one band of {piece.dtype} numbers, shown in grey. If they are heights, no photo is found in "
        f"them: delete the map, and give them to one that shows the ground, with --elevation {piece.name}."
    )


def _collar_note(piece: Piece) -> str:
    if piece.collar is None:
        return ""
    value = ", ".join(f"{v:g}" for v in piece.collar.value.tolist())
    return (
        f"{piece.collar.share:.0%} of {piece.name} is one flat colour ({value}) from its edge inwards: taken for "
        f"fill, and left out. To declare it: gdal_edit.py -a_nodata {piece.collar.value[0]:g} {piece.name}"
    )


def _gsd_note(piece: Piece) -> str:
    return "".join(gsd_note(piece.name, piece.gsd_m))


def _without_collar(piece: Piece, seen: Survey) -> NDArray[np.bool_]:
    """Which pixels of the samples count."""
    if piece.collar is None:
        return seen.valid
    value = piece.collar.value[:, None, None, None, None].astype(float)
    fill = (np.abs(seen.bands - value) <= piece.collar.tolerance).all(axis=0)
    return np.asarray(seen.valid & ~(fill & piece.collar.cells[:, :, None, None]))


def _contrast(piece: Piece, seen: Survey, valid: NDArray[np.bool_]) -> float:
    """Standard deviation of brightness over all samples, of 255."""
    bright = piece.rendering.rgb(seen.bands, piece.stretch).mean(axis=0)[valid]
    return float(bright.std()) if bright.size else 0.0
