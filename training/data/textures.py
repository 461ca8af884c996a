"""A bank of aerial pictures to simulate from: any images or GeoTIFFs, kept in memory as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from training.data.scene import load_scene
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.data.simulated import SimulatedConfig

#: Longer pictures are halved on reading: more pixels than this on a side are not worth their memory.
MAX_SIDE_PX = 4096


@dataclass(frozen=True)
class Texture:
    """One picture: ``image`` is uint8 ``[3, H, W]``; ``group`` names the folder it came from."""

    name: str
    group: str
    image: Tensor


def load_textures(data: SimulatedConfig) -> tuple[list[Texture], list[Texture]]:
    """All textures of the globs, as ``(train, held_out)``.

    The split goes by a hash of the relative path, so that it does not change when textures are added.

    Raises:
        TrainingError: a glob matches nothing, or a file is no picture.
    """
    if not data.textures:
        raise TrainingError("data.textures is empty: give globs of aerial pictures, such as maps/*.tif.")
    train: list[Texture] = []
    held_out: list[Texture] = []
    for glob in data.textures:
        paths = sorted(data.root.glob(glob))
        if not paths:
            raise TrainingError(
                f"No file matches {glob!r} under {data.root}. Set data.root to the folder it counts from."
            )
        for path in paths:
            name = path.relative_to(data.root).as_posix()
            texture = Texture(name, path.parent.relative_to(data.root).as_posix(), _read(path))
            draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
            (held_out if draw < data.held_out_share else train).append(texture)
    if not train:
        raise TrainingError(
            f"Only {len(held_out)} textures, and all are held out. Add more, or set data.held_out_share=0."
        )
    return train, held_out


def _read(path: Path) -> Tensor:
    if path.suffix.lower() in {".tif", ".tiff"}:
        return (load_scene(path).texture[0] * 255).round().to(torch.uint8)
    try:
        with Image.open(path) as image:
            image.draft("RGB", (MAX_SIDE_PX // 2, MAX_SIDE_PX // 2))
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (UnidentifiedImageError, OSError) as error:
        raise TrainingError(f"{path} is not a readable picture: {error}") from error
