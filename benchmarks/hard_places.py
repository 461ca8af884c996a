"""Places that look alike, for ``dphr.py``: views of streets, houses, factories and car parks, rendered once as bytes.

A quarter of the pictures is held back. Each of these is a place with one tile, its centre, and eight photos; places of
another kind, LEVIR's, are photographed years after (or before) their tile. Both ask in one gallery, so that each is the
other's distractors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batch import Batch
from training.data.simulator.pairs import PairSimulator, cut_tiles
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture, load_dates, load_textures
from training.data.transforms import augment

TEXTURES = ("epfl_roads/*.jpg", "rsscn7/cIndustry/*.jpg", "rsscn7/fResident/*.jpg", "rsscn7/gParking/*.jpg")
DATES = ("levir_cd/before/*.jpg", "levir_cd/after/*.jpg")
HELD_BACK = 0.25
SIZE = 96  # px
VIEWS = 8  # of each place: pairs to train on, or photos to ask with
#: Pictures of LEVIR are cut into so many pieces each way; 9 × 33 pieces are the 300 distractors.
PIECES = 3
#: A piece that is rebuilt for more than this share is a distractor alone.
REBUILT = 0.5
TILE_SHARE = 0.6  # tile side over the side of a held-back scene; within the range of training
#: Changes of appearance of photos and tiles, as in training (``PairSimulator``) and in its tests (``held_out.py``).
PHOTO_STRENGTH, TILE_STRENGTH, TEST_TILE_STRENGTH = 1.0, 0.7, 0.3
SEED = 20_261_129


@dataclass(frozen=True)
class Pairs:
    """Rendered pairs as the training loop takes them (``training.data.base.PairData``): a view is drawn each time.

    Attributes:
        photo: uint8 ``[P, V, 3, S, S]``, or what a network's first stages make of them, float ``[P, V, C, h, w]``.
        tile: likewise.
        offset_m: ``[P, V, 2]``, see ``Batch``.
        tile_side_m: of all tiles.
    """

    photo: Tensor
    tile: Tensor
    offset_m: Tensor
    tile_side_m: float
    position: None = None
    also_shows: None = None

    @property
    def places(self) -> int:
        """Number of places; each is one pair of an epoch."""
        return len(self.photo)

    @property
    def place(self) -> NDArray[np.int64]:
        """``[P]`` place of each pair."""
        return np.arange(self.places)

    def load(self, pairs: Sequence[int], generator: Generator, *, clean: bool = False) -> Batch:
        """Return one of each place's views. All were rendered as a camera and a map maker see; none is ``clean``."""
        place = torch.tensor(list(pairs))
        view = torch.randint(self.photo.shape[1], (len(place),), generator=generator)
        photo, tile = (images[place, view].float() / 255 for images in (self.photo, self.tile))
        side_m, overlap = torch.full((len(place),), self.tile_side_m), torch.ones(len(place))
        return Batch(photo, tile, place, self.offset_m[place, view], side_m, overlap)


@dataclass(frozen=True)
class Questions:
    """Photos to find in one gallery of tiles.

    Attributes:
        photo: uint8 ``[Q, V, 3, S, S]``: V photos of each place that is asked for; or maps, as in ``Pairs``.
        tile: uint8 ``[G, 3, S, S]``, one of each place; likewise.
        row: ``[Q]`` the tile of each place.
        dated: bool ``[Q]``, whether photo and tile are of two dates.
    """

    photo: Tensor
    tile: Tensor
    row: Tensor
    dated: Tensor


def load_places(data: Path, kept: Path) -> tuple[Pairs, Questions]:
    """Load pairs to train on and questions to be judged by; rendered at the first call, then read.

    Args:
        data: the folder that holds ``aerial_texture`` and ``levir_cd``.
        kept: the file that keeps the views.
    """
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        views = _render(data)
        torch.save(views, kept.with_suffix(".partial"))
        kept.with_suffix(".partial").replace(kept)
    pairs, questions, side_m = torch.load(kept, mmap=True, weights_only=True)
    return Pairs(*pairs, side_m), Questions(*questions)


def _render(data: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], float]:
    config = SimulatedConfig(root=data / "aerial_texture", textures=TEXTURES, held_out_share=HELD_BACK)
    train, held_back = load_textures(config)
    asked = held_back + _pieces(load_dates(SimulatedConfig(root=data, dates=(DATES,))))
    return _pairs(train, config), _questions(asked, config), config.tile_side_m


def _pairs(textures: list[Texture], config: SimulatedConfig) -> tuple[Tensor, ...]:
    simulator, views = PairSimulator(textures, config, SIZE, seed=SEED), []
    for number in range(VIEWS):
        dice = Generator().manual_seed(SEED + number)
        taken = [simulator.take(some, dice) for some in torch.arange(len(textures)).split(32)]
        photo, tile, offset_m = (
            torch.cat([getattr(each, name) for each in taken]) for name in ("photo", "tile", "offset_m")
        )
        photo = augment(photo.float() / 255, dice, strength=PHOTO_STRENGTH)
        tile = augment(tile.float() / 255, dice, strength=TILE_STRENGTH)
        views.append((_bytes(photo), _bytes(tile), offset_m))
    return tuple(torch.stack(same, 1) for same in zip(*views, strict=True))


def _questions(textures: list[Texture], config: SimulatedConfig) -> tuple[Tensor, ...]:
    simulator = PairSimulator(textures, config, SIZE, seed=SEED)
    photos, tiles, rows, dated = [], [], [], []
    for row, texture in enumerate(textures):
        dice = Generator().manual_seed(SEED + (1 << 20) + row)
        seen, mapped = simulator.dated_scenes(torch.tensor([row]), TILE_SHARE, dice)
        tile = cut_tiles(mapped, torch.zeros(1, 2), config.tile_side_m, SIZE)
        tiles.append(_bytes(augment(tile, dice, strength=TEST_TILE_STRENGTH))[0])
        target = (2 * torch.rand(VIEWS, 2, generator=dice) - 1) * config.offset_share * config.tile_side_m
        photo = augment(simulator.photos(seen, target, dice).image, dice, strength=PHOTO_STRENGTH)
        if texture.other is None or texture.other[3].float().mean() / 255 >= 1 - REBUILT:
            photos.append(_bytes(photo))
            rows.append(row)
            dated.append(texture.other is not None)
    return torch.stack(photos), torch.stack(tiles), torch.tensor(rows), torch.tensor(dated)


def _pieces(textures: list[Texture]) -> list[Texture]:
    pieces = []
    for texture in textures:
        both = texture.image if texture.other is None else torch.cat((texture.image, texture.other))
        for r, row in enumerate(torch.tensor_split(both, PIECES, dim=1)):
            for c, piece in enumerate(torch.tensor_split(row, PIECES, dim=2)):
                pieces.append(Texture(f"{texture.name}#r{r}c{c}", texture.group, piece[:3], piece[3:]))
    return pieces


def _bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)
