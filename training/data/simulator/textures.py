"""A bank of aerial pictures to simulate from: any images or GeoTIFFs, of one date or two, kept in memory as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from training.data.simulator.dates import paired_files, unchanged
from training.data.simulator.scene import load_scene
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.data.simulator.simulated import SimulatedConfig

#: Longer pictures are halved on reading: more pixels than this on a side are not worth their memory.
MAX_SIDE_PX = 4096
#: Maps of known scale are read at this many metres a pixel: a tile of 86 m then has more pixels than any small model
#: looks at, and 2 km fit into ``load_scene``'s limit.
MAP_GSD_M = 0.25


@dataclass(frozen=True)
class Texture:
    """A picture, or a piece of a large one.

    Attributes:
        name: of the file, and the piece.
        group: names the folder.
        image: uint8 ``[3, H, W]``.
        other: uint8 ``[4, H, W]``, the same place on another date, and 255 where it still looks the same, 0 where it
            has been rebuilt; None when one date is all there is.
    """

    name: str
    group: str
    image: Tensor
    other: Tensor | None = None


def load_textures(data: SimulatedConfig) -> tuple[list[Texture], list[Texture]]:
    """Load all textures of the globs, as ``(train, held_out)``.

    A texture is a place. A map that is large enough for several windows (``window_px``) is cut into as many pieces as
    have room, which share no ground: one orthophoto is enough to train on. The split goes by a hash of the relative
    path and piece, so that it does not change when textures are added.

    Raises:
        TrainingError: a glob matches nothing, or a file is no picture.
    """
    if data.map is not None:
        raise TrainingError("data.map is all trained on, so nothing is held out to judge by: use data.textures.")
    if not data.textures:
        raise TrainingError("data.textures is empty: give globs of aerial pictures, such as maps/*.tif, or data.map.")
    train: list[Texture] = []
    held_out: list[Texture] = []
    for glob in data.textures:
        paths = sorted(data.root.glob(glob))
        if not paths:
            raise TrainingError(
                f"No file matches {glob!r} under {data.root}. Set data.root to the folder it counts from."
            )
        for path in paths:
            file, group = path.relative_to(data.root).as_posix(), path.parent.relative_to(data.root).as_posix()
            for piece, image in _pieces(_read(path), data.window_px[1]):
                name = file + piece
                draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
                (held_out if draw < data.held_out_share else train).append(Texture(name, group, image))
    train += [texture for texture in load_dates(data) if texture.name not in data.dates_held_out]
    if not train:
        raise TrainingError(
            f"Only {len(held_out)} textures, and all are held out. Add more, or set data.held_out_share=0."
        )
    return train, held_out


def load_dates(data: SimulatedConfig) -> list[Texture]:
    """Load the places of ``data.dates``, each on two dates, and of ``data.dates_held_out``; the first date names them.

    Raises:
        TrainingError: globs do not match in pairs, a file is no picture, or the two of a pair differ in size.
    """
    places = []
    for globs in data.dates:
        for before, after in paired_files(data.root, globs):
            image, other = _read(before), _read(after)
            if image.shape != other.shape:
                raise TrainingError(f"{before} and {after} are not aligned: they differ in size.")
            same = unchanged(image, other)[None, None].float()
            same = F.interpolate(same, image.shape[1:])[0].mul(255).to(torch.uint8)
            name, group = (path.relative_to(data.root).as_posix() for path in (before, before.parent))
            places.append(Texture(name, group, image, torch.cat((other, same))))
    absent = set(data.dates_held_out) - {place.name for place in places}
    if absent:
        raise TrainingError(f"data.dates_held_out names {min(absent)}, which no first glob of data.dates matches.")
    return places


def map_windows(data: SimulatedConfig) -> tuple[list[Texture], int]:
    """Return the map as places to train on, and the side in pixels of the windows to cut from them.

    A window is ``tile_side_m / tile_share`` wide on the ground, for the smaller share, and so is a place at least.

    Raises:
        TrainingError: there is no map, it cannot be read, or it is too small for two places.
    """
    if data.map is None:
        raise TrainingError("data.map is not set: give a GeoTIFF, such as data.map=area.tif.")
    side_m = data.tile_side_m / data.tile_share[0]
    side_px = round(side_m / MAP_GSD_M)
    image = (load_scene(data.root / data.map, gsd_m=MAP_GSD_M).texture[0] * 255).round().to(torch.uint8)
    places = [Texture(data.map.name + name, "map", piece) for name, piece in _pieces(image, side_px)]
    if len(places) < 2:
        raise TrainingError(f"{data.map} is too small: it must have room for two squares of {side_m:.0f} m.")
    return places, side_px


def _pieces(image: Tensor, side_px: int) -> list[tuple[str, Tensor]]:
    """The image in equal pieces of at least ``side_px``, named like ``#r0c2``; whole and without a name if small."""
    rows, columns = (max(1, side // side_px) for side in image.shape[1:])
    if rows == columns == 1:
        return [("", image)]
    return [
        (f"#r{r}c{c}", piece.contiguous())
        for r, row in enumerate(torch.tensor_split(image, rows, dim=1))
        for c, piece in enumerate(torch.tensor_split(row, columns, dim=2))
    ]


def _read(path: Path) -> Tensor:
    if path.suffix.lower() in {".tif", ".tiff"}:
        return (load_scene(path).texture[0] * 255).round().to(torch.uint8)
    try:
        with Image.open(path) as image:
            image.draft("RGB", (MAX_SIDE_PX // 2, MAX_SIDE_PX // 2))
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
    except (UnidentifiedImageError, OSError) as error:
        raise TrainingError(f"{path} is not a readable picture: {error}") from error
