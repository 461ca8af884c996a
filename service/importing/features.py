"""What the model says of windows, in batches, as a gallery keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.encoder.session import Encoder, Features
from service.ground.blocks import middle
from service.ground.local_maps import LocalMap, to_int8
from service.importing.build import Cut

UNIT_TOLERANCE = 1e-2
"""An embedding's length may differ so much from 1, as for photos: reduced precision leaves it within 1e-3; a failed
image gives 0 or NaN."""


def encode(encoder: Encoder, inputs: Sequence[NDArray[np.uint8]], max_batch: int) -> Features:
    """Return features of inputs ``[S, S, 3]``, in batches that the encoder likes."""
    at_once = encoder.useful_batch(max_batch)
    parts = [encoder.encode(np.stack(inputs[start : start + at_once])) for start in range(0, len(inputs), at_once)]
    if not parts:
        return Features(np.empty((0, encoder.contract.embedding_dim), np.float32))
    local = [part.local for part in parts if part.local is not None]
    return Features(np.concatenate([part.embedding for part in parts]), np.concatenate(local) if local else None)


def is_unit(vector: NDArray[np.float32]) -> bool:
    """Say whether an embedding is one: the model gives none for an image that it fails on."""
    return bool(abs(np.linalg.norm(vector) - 1) < UNIT_TOLERANCE)  # false for NaN


def blocks_of(cuts: Sequence[Cut], features: Features) -> dict[int, LocalMap]:
    """Return the blocks of descriptors that are kept of windows, by their ids."""
    if features.local is None:
        return {}
    return {cut.key: middle(to_int8(local)) for cut, local in zip(cuts, features.local, strict=True) if cut.described}
