"""Pairs of one place: a map tile, and a drone photo of it that the simulator takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.batch import Batch
from training.data.simulator.render import Camera, Views, render
from training.data.simulator.scene import HEIGHT_CELL_M, Scene, raise_blocks
from training.data.simulator.textures import Texture
from training.data.transforms import augment

if TYPE_CHECKING:
    from training.data.simulator.simulated import SimulatedConfig

#: Side of the texture window after resampling; a tile of half the window still has as many pixels as the model's input.
SCENE_PX = 400
#: Height fields made once and drawn from: raising blocks anew for every pair would cost as much as rendering it.
RELIEFS = 256


class PairSimulator:
    """Textures as places, each with one pair that is new every time (``training.data.base.PairData``).

    Args:
        textures: the places.
        config: how the drone flies over them.
        image_size: side of photo and tile, px.
        seed: of the blocks that are raised.
    """

    def __init__(self, textures: list[Texture], config: SimulatedConfig, image_size: int, *, seed: int = 0) -> None:
        self.textures, self.config, self.image_size = textures, config, image_size
        self.place: NDArray[np.int64] = np.arange(len(textures), dtype=np.int64)
        self.places = len(textures)
        self.position: NDArray[np.float64] | None = None
        self.also_shows: list[NDArray[np.int64]] | None = None
        rng = np.random.default_rng(seed)
        side_m = config.tile_side_m / config.tile_share[0]
        self.reliefs = torch.stack([torch.from_numpy(raise_blocks(side_m, side_m, rng)) for _ in range(RELIEFS)])

    def load(self, pairs: Sequence[int], generator: Generator, *, clean: bool = False) -> Batch:
        """Fly over these textures.

        Args:
            pairs: textures.
            generator: the source of all randomness, on the CPU.
            clean: leave the appearance as it is (geometry still varies).
        """
        config, index = self.config, torch.as_tensor(list(pairs))
        scene = self.scenes(index, _between(config.tile_share, 1, generator).item(), generator)
        n, slack = len(index), (scene.width_m - config.tile_side_m) / 2
        centre = (torch.rand(n, 2, generator=generator) * 2 - 1) * slack
        offset = (torch.rand(n, 2, generator=generator) * 2 - 1) * config.offset_share * config.tile_side_m
        tile = cut_tiles(scene, centre, config.tile_side_m, self.image_size)
        views = self.photos(scene, centre + offset, generator)
        photo = views.image
        if not clean:
            photo, tile = augment(photo, generator), augment(tile, generator, strength=0.7)
        south = torch.tensor([1.0, -1.0])  # north is up, and down is counted
        return Batch(
            photo=photo,
            tile=tile,
            place=index,
            offset_m=(views.centre[:, :2] - centre) * south,
            tile_side_m=torch.full((n,), config.tile_side_m),
            overlap=torch.ones(n),
            ground_m=(views.ground[..., :2] - centre[:, None, None]) * south,
        )

    def scenes(self, index: Tensor, tile_share: float, generator: Generator) -> Scene:
        """One scene for each texture in ``index``, its side being the tile's side over ``tile_share``."""
        side_m = self.config.tile_side_m / tile_share
        texture = torch.stack([self._window(self.textures[int(i)].image, generator) for i in index])
        relief = self.reliefs[torch.randint(RELIEFS, (len(index),), generator=generator)]
        relief = relief * (torch.rand(len(index), 1, 1, generator=generator) < self.config.relief_share)
        cells = max(2, round(side_m / HEIGHT_CELL_M))
        return Scene(texture, relief[:, :cells, :cells].contiguous(), side_m / SCENE_PX)

    def photos(self, scene: Scene, target: Tensor, generator: Generator) -> Views:
        """Views from random poses aimed at ``target [N, 2]`` (east, north), before any change of appearance."""
        return self.shoot(scene, self.cameras(target, generator))

    def shoot(self, scene: Scene, camera: Camera) -> Views:
        """Views from given poses."""
        return render(scene, camera, self.image_size, self.image_size, outside="reflect")

    def _window(self, image: Tensor, generator: Generator) -> Tensor:
        """A square window of the texture, turned or mirrored at random, resampled to SCENE_PX: ``[3, P, P]``, 0..1."""
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

    def cameras(self, target: Tensor, generator: Generator) -> Camera:
        """Cameras that look at ``target [N, 2]`` and see a ground square of about the tile's side."""
        n, config = target.shape[0], self.config
        nadir = torch.rand(n, generator=generator) < config.nadir_share
        steep = (max(config.pitch_deg[0], config.pitch_deg[1] - 10), config.pitch_deg[1])
        pitch = torch.where(nadir, _between(steep, n, generator), _between(config.pitch_deg, n, generator))
        hfov = _between(config.hfov_deg, n, generator)
        side = config.tile_side_m * _between(config.scale, n, generator)
        distance = side / 2 / torch.tan(torch.deg2rad(hfov) / 2)
        heading = _between(config.heading_deg, n, generator)
        return Camera.looking_at(target[:, 0], target[:, 1], distance.clamp(min=25), heading, pitch, hfov)


def _between(bounds: tuple[float, float], n: int, generator: Generator) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(n, generator=generator)


def cut_tiles(scene: Scene, centre: Tensor, side_m: float, image_size: int) -> Tensor:
    """North-up tiles ``[N, 3, S, S]`` of ``side_m`` metres around ``centre [N, 2]`` (east, north) of one scene each."""
    n = centre.shape[0]
    half = torch.tensor([side_m / scene.width_m, side_m / scene.depth_m])
    middle = centre * torch.tensor([2 / scene.width_m, -2 / scene.depth_m])
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[0], half[1], middle
    grid = F.affine_grid(theta, [n, 3, image_size, image_size], align_corners=False)
    texture = scene.texture.expand(n, -1, -1, -1)
    return F.grid_sample(texture, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
