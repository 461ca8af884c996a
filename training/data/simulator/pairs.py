"""Pairs of one place: a map tile, and a drone photo of it that the simulator takes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batch import Batch
from training.data.simulator.cache import ViewCache
from training.data.simulator.drone import Drone, between
from training.data.simulator.render import unit_grid
from training.data.simulator.scene import HEIGHT_CELL_M, Scene, raise_blocks
from training.data.simulator.textures import Texture
from training.data.transforms import augment, compress, recolour

if TYPE_CHECKING:
    from training.data.simulator.simulated import SimulatedConfig

#: Side of the texture window after resampling; a tile of half the window still has as many pixels as the model's input.
SCENE_PX = 400
#: Height fields made once and drawn from: raising blocks anew for every pair would cost as much as rendering it.
RELIEFS = 256
#: Pixels of the photo, each way, for which one ground point is kept: the cells of most dense descriptors.
CELL_PX = 8
#: A window of two dates is drawn this often, until this share of it looks the same.
WINDOW_DRAWS, MOSTLY = 4, 0.5


@dataclass(frozen=True)
class Taken:
    """What N drones saw, before any change of appearance.

    Attributes:
        photo: uint8 ``[N, 3, S, S]``.
        tile: likewise.
        offset_m, overlap: as in ``Batch``.
        ground_m: ``[N, G, G, 2]``, as in ``Batch``; NaN also where the ground has been rebuilt between the two dates.
    """

    photo: Tensor
    tile: Tensor
    offset_m: Tensor
    overlap: Tensor
    ground_m: Tensor


class PairSimulator(Drone):
    """Textures as places, with pairs that are new every time (``training.data.base.PairData``).

    A texture of one date is one pair. Those of two dates are as many more, each, as make up ``dates_share`` of all.

    Args:
        textures: the places.
        config: how the drone flies over them.
        image_size: side of photo and tile, px.
        seed: of the blocks that are raised.
    """

    def __init__(self, textures: list[Texture], config: SimulatedConfig, image_size: int, *, seed: int = 0) -> None:
        super().__init__(config, image_size)
        self.textures, self.seed = textures, seed
        self.place: NDArray[np.int64] = _places(textures, config.dates_share)
        self.places = len(textures)
        self.position: NDArray[np.float64] | None = None
        self.also_shows: list[NDArray[np.int64]] | None = None
        rng = np.random.default_rng(seed)
        side_m = config.tile_side_m / config.tile_share[0]
        self.reliefs = torch.stack([torch.from_numpy(raise_blocks(side_m, side_m, rng)) for _ in range(RELIEFS)])
        self.kept = None if config.cache is None else ViewCache(config.cache, (config, image_size, seed))

    def load(self, pairs: Sequence[int], generator: Generator, *, clean: bool = False) -> Batch:
        """Fly over the textures of these pairs.

        Args:
            pairs: which.
            generator: the source of all randomness, on the CPU.
            clean: leave the appearance as it is (geometry still varies).
        """
        index = torch.from_numpy(self.place[list(pairs)])
        taken = self.take(index, generator) if self.kept is None else self._recall(self.kept, index, generator)
        if self.config.quarter_turns:
            taken = _turned(taken, torch.randint(4, (len(index),), generator=generator).tolist())
        photo, tile = taken.photo.float() / 255, taken.tile.float() / 255
        if not clean:
            photo, tile = self._change(photo, tile, generator)
        return Batch(
            photo=photo,
            tile=tile,
            place=index,
            offset_m=taken.offset_m,
            tile_side_m=torch.full((len(index),), self.config.tile_side_m),
            overlap=taken.overlap,
            ground_m=taken.ground_m,
        )

    def take(self, index: Tensor, generator: Generator) -> Taken:
        """Take photo and tile of each texture in ``index``, of two dates where there are two."""
        config, n = self.config, len(index)
        tile_share = between(config.tile_share, 1, generator).item()
        windows = torch.stack([self._two_dates(self.textures[int(i)], generator) for i in index])
        scene = self._scene(windows[:, :3], tile_share, generator)
        slack = (scene.width_m - config.tile_side_m) / 2
        centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * slack
        offset = (torch.rand(n, 2, generator=generator) * 2 - 1) * config.offset_share * config.tile_side_m
        tile = cut_tiles(replace(scene, texture=windows[:, 3:6]), centre, config.tile_side_m, self.image_size)
        views = self.looks(scene, centre + offset, generator)
        ground = views.ground[..., :2]
        same = F.grid_sample(windows[:, 6:], unit_grid(scene, ground.nan_to_num()), align_corners=False)[:, 0] >= 0.5
        known = views.valid & same
        ground = torch.where(known[..., None], ground - centre[:, None, None], torch.nan)
        south = torch.tensor([1.0, -1.0])  # north is up, and down is counted
        cells = self.image_size // CELL_PX
        return Taken(
            photo=_bytes(views.image),
            tile=_bytes(tile),
            offset_m=(views.centre[:, :2] - centre) * south,
            overlap=known.sum((1, 2)) / views.valid.sum((1, 2)).clamp(min=1),
            ground_m=F.adaptive_avg_pool2d(ground.movedim(3, 1), cells).movedim(1, 3) * south,
        )

    def _recall(self, kept: ViewCache, index: Tensor, generator: Generator) -> Taken:
        """Views that were taken before, or are now, one by one: each depends on the seed, its place and its number."""
        numbers = torch.randint(self.config.views, (len(index),), generator=generator).tolist()
        views = []
        for texture, number in zip(index.tolist(), numbers, strict=True):
            name = f"{self.textures[texture].name}:{number}"
            dice = Generator().manual_seed(self.seed << 32 | zlib.crc32(name.encode()))
            views.append(kept.get(name, Taken, partial(self.take, torch.tensor([texture]), dice)))
        return Taken(*(torch.cat([getattr(v, f.name) for v in views]) for f in fields(Taken)))

    def _change(self, photo: Tensor, tile: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Another camera, hour, season and file for both."""
        config, changed = self.config, []
        for images, strength in ((photo, 1.0), (tile, 0.7)):
            images = recolour(images, generator, share=config.recolour_share)
            images = augment(images, generator, strength=strength)
            if config.jpeg_quality is not None:
                images = compress(images, generator, share=0.5, quality=config.jpeg_quality)
            changed.append(images)
        return changed[0], changed[1]

    def scenes(self, index: Tensor, tile_share: float, generator: Generator) -> Scene:
        """Make one scene for each texture in ``index``, its side being the tile's side over ``tile_share``."""
        return self.dated_scenes(index, tile_share, generator)[0]

    def dated_scenes(self, index: Tensor, tile_share: float, generator: Generator) -> tuple[Scene, Scene]:
        """Make them as the photo sees them and as the map shows them: of two dates where a texture has two."""
        windows = torch.stack([self._two_dates(self.textures[int(i)], generator) for i in index])
        scene = self._scene(windows[:, :3], tile_share, generator)
        return scene, replace(scene, texture=windows[:, 3:6])

    def _scene(self, texture: Tensor, tile_share: float, generator: Generator) -> Scene:
        side_m, n = self.config.tile_side_m / tile_share, len(texture)
        relief = self.reliefs[torch.randint(RELIEFS, (n,), generator=generator)]
        relief = relief * (torch.rand(n, 1, 1, generator=generator) < self.config.relief_share)
        cells = max(2, round(side_m / HEIGHT_CELL_M))
        return Scene(texture, relief[:, :cells, :cells].contiguous(), side_m / SCENE_PX)

    def _two_dates(self, texture: Texture, generator: Generator) -> Tensor:
        """What the photo sees, what the tile shows, and 1 where these are the same: ``[7, P, P]``, 0..1.

        Which date is the photo's is drawn. Windows that have been rebuilt for the most part are drawn again.
        """
        if texture.other is None:
            window = self._window(texture.image, generator)
            return torch.cat((window, window, torch.ones_like(window[:1])))
        both = torch.cat((texture.image, texture.other))
        windows: list[Tensor] = []
        while len(windows) < WINDOW_DRAWS and (not windows or windows[-1][6].mean() < MOSTLY):
            windows.append(self._window(both, generator))
        window = max(windows, key=lambda w: float(w[6].mean()))
        swapped = bool(torch.rand((), generator=generator) < 0.5)
        return torch.cat((window[3:6], window[:3], window[6:])) if swapped else window

    def _window(self, image: Tensor, generator: Generator) -> Tensor:
        """A square window ``[C, P, P]`` of a picture, turned or mirrored at random, resampled to SCENE_PX; 0..1."""
        shortest = min(image.shape[1:])
        low, high = (min(v, shortest) for v in self.config.window_px)
        side = int(torch.randint(low, high + 1, (), generator=generator))
        row = int(torch.randint(image.shape[1] - side + 1, (), generator=generator))
        col = int(torch.randint(image.shape[2] - side + 1, (), generator=generator))
        window = image[None, :, row : row + side, col : col + side].float() / 255
        turns, mirror = (int(v) for v in torch.randint(0, 8, (2,), generator=generator))
        window = torch.rot90(window, turns % 4, (2, 3))
        window = window.flip(3) if mirror % 2 else window
        return F.interpolate(window, (SCENE_PX, SCENE_PX), mode="bilinear", antialias=True, align_corners=False)[0]


def _places(textures: list[Texture], share: float) -> NDArray[np.int64]:
    """The texture of each pair: those of one date once, those of two dates so often that they are ``share`` of all."""
    dated = [i for i, texture in enumerate(textures) if texture.other is not None]
    single = len(textures) - len(dated)
    times = max(1, round(share / (1 - share) * single / len(dated))) if dated else 0
    return np.array([*range(len(textures)), *dated * (times - 1)], np.int64)


def _turned(taken: Taken, quarters: list[int]) -> Taken:
    """The photos turned counter-clockwise, with the ground of their parts; the photo's centre stays where it is."""
    photo = torch.stack([p.rot90(k, (1, 2)) for p, k in zip(taken.photo, quarters, strict=True)])
    ground = torch.stack([g.rot90(k, (0, 1)) for g, k in zip(taken.ground_m, quarters, strict=True)])
    return replace(taken, photo=photo, ground_m=ground)


def _bytes(images: Tensor) -> Tensor:
    return images.clamp(0, 1).mul(255).round().to(torch.uint8)


def cut_tiles(scene: Scene, centre: Tensor, side_m: float, image_size: int) -> Tensor:
    """Cut north-up tiles ``[N, 3, S, S]`` of ``side_m`` metres around ``centre [N, 2]`` (east, north), one a scene."""
    n = centre.shape[0]
    half = torch.tensor([side_m / scene.width_m, side_m / scene.depth_m])
    middle = centre * torch.tensor([2 / scene.width_m, -2 / scene.depth_m])
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[0], half[1], middle
    grid = F.affine_grid(theta, [n, 3, image_size, image_size], align_corners=False)
    texture = scene.texture.expand(n, -1, -1, -1)
    return F.grid_sample(texture, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
