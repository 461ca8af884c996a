"""Image files as tensors: single images to be judged by, and pairs to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from training.batch import Batch
from training.data.recipe import Turns, augment_pair, to_tensor
from training.errors import TrainingError


class InputSize(Protocol):
    """What the model wants: ``ModelConfig`` is one."""

    @property
    def image_size(self) -> int:
        """Side of the square input, px."""

    @property
    def resize(self) -> str:
        """How images become square: ``squash`` or ``center_crop``."""


def read_image(path: Path, size: InputSize, aspect: int = 1) -> Image.Image:
    """Read an image file as the model wants it, ``S`` by ``S`` px, by the convention of the model contract.

    An ``aspect`` of more than 1 squashes it to ``S`` by ``aspect`` times ``S`` (height by width) instead.

    ``squash`` resizes the whole image, ``center_crop`` its centre square, both with Pillow's BICUBIC. Large JPEGs are
    decoded at a fraction of their size, but never below twice the model's.

    Raises:
        TrainingError: the file is no readable picture.
    """
    side = size.image_size
    try:
        with Image.open(path) as file:
            file.draft("RGB", (2 * side, 2 * side))
            image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of these
        raise TrainingError(f"{path} is not a readable picture: {error}") from error
    if size.resize == "center_crop" and aspect == 1:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        image = image.crop((left, top, left + short, top + short))
    return image.resize((aspect * side, side), Image.Resampling.BICUBIC)


class ImageFiles:
    """Files as one side of a task (``training.data.base.Images``).

    Args:
        paths: the files.
        place: ``[N]`` int64 place of each.
        size: what the model wants.
        root: names of images count from here.
        position: ``[N, 2]`` lat, lon in degrees, or None.
        aspect: width over height of what the model gets; more than 1 for panoramas.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        place: NDArray[np.int64],
        size: InputSize,
        root: Path,
        *,
        position: NDArray[np.float64] | None = None,
        aspect: int = 1,
    ) -> None:
        self.paths, self.place, self.position, self._size = list(paths), place, position, size
        self._aspect = aspect
        self.name = [path.relative_to(root).as_posix() for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: Sequence[int]) -> Tensor:
        """Load images ``[n, 3, S, S]``, 0 to 1.

        Raises:
            TrainingError: a file is no readable picture.
        """
        return torch.stack([to_tensor(read_image(self.paths[i], self._size, self._aspect)) for i in index])


@dataclass
class FilePairs:
    """Photo files and tile files as pairs (``training.data.base.PairData``).

    Attributes:
        photos: ``M`` photo files.
        tiles: ``M`` tile files.
        place: ``[M]`` int64 place of each pair.
        places: number of places.
        size: what the model wants.
        position: ``[places, 2]`` lat, lon in degrees, or None.
        offset_m: ``[M, 2]`` right and down of the photo's ground point from the tile's centre; None: not known.
        tile_side_m: ``[M]`` ground side of the tile; None: not known.
        overlap: ``[M]`` share of common ground, 0 to 1; None: not graded.
        also_shows: per pair, other places that the photo shows; None when places do not overlap.
        turns: what may be turned by quarter circles in training (``training.data.recipe``).
        aspect: width over height of the photos that the model gets; more than 1 for panoramas.
    """

    photos: list[Path]
    tiles: list[Path]
    place: NDArray[np.int64]
    places: int
    size: InputSize
    position: NDArray[np.float64] | None = None
    offset_m: NDArray[np.float64] | None = None
    tile_side_m: NDArray[np.float64] | None = None
    overlap: NDArray[np.float64] | None = None
    also_shows: list[NDArray[np.int64]] | None = None
    turns: Turns = "tile"
    aspect: int = 1

    def leave_tiles_upright(self) -> None:
        """Turn no tile alone; where tile and panorama turn together, they go on to."""
        self.turns = "none" if self.turns == "tile" else self.turns

    def load(self, pairs: Sequence[int], generator: Generator, *, clean: bool = False) -> Batch:
        """Read these pairs, augmented by Sample4Geo's recipe unless ``clean``.

        Raises:
            TrainingError: a file is no readable picture.
        """
        index = np.asarray(pairs, np.int64)
        offset_m = _rows(self.offset_m, index, (len(index), 2), torch.nan)
        photos, tiles = [], []
        for row, pair in enumerate(index):
            photo = read_image(self.photos[pair], self.size, self.aspect)
            tile = read_image(self.tiles[pair], self.size)
            if clean:
                photos.append(to_tensor(photo))
                tiles.append(to_tensor(tile))
            else:
                images, offset_m[row] = augment_pair(photo, tile, offset_m[row], generator, turns=self.turns)
                photos.append(images[0])
                tiles.append(images[1])
        return Batch(
            photo=torch.stack(photos),
            tile=torch.stack(tiles),
            place=torch.from_numpy(self.place[index]),
            offset_m=offset_m,
            tile_side_m=_rows(self.tile_side_m, index, (len(index),), torch.nan),
            overlap=_rows(self.overlap, index, (len(index),), 1.0),
        )


def _rows(
    values: NDArray[np.float64] | None, index: NDArray[np.int64], shape: tuple[int, ...], otherwise: float
) -> Tensor:
    return torch.full(shape, otherwise) if values is None else torch.from_numpy(values[index]).float()
