"""Photos and tiles of held-out textures: the simulated test. Everything depends on the seed and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from training.data.base import on_the_equator
from training.data.simulator.pairs import PairSimulator, cut_tiles
from training.data.simulator.render import Camera, render
from training.data.simulator.scene import Scene
from training.data.transforms import augment

PHOTOS_PER_TEXTURE = 4
#: A test scene is two tile sides wide and holds three by three half-overlapping tiles.
SCENE_TILE_SHARE, STEPS_SIDES = 0.5, (-0.5, 0.0, 0.5)
#: Scenes lie in a row on the equator, so far apart that no metric takes one for a neighbour of the other.
SCENE_DISTANCE_SIDES = 20.0
#: How strongly tiles are recoloured: map makers differ less than cameras do.
TILE_STRENGTH = 0.3


class HeldOutPhotos:
    """Photos from random poses, four of each texture (``training.data.base.Images``); a texture is a place.

    Args:
        simulator: over the held-out textures.
        seed: of the scenes, poses and appearances.

    Attributes:
        point_m: ``[N, 2]`` east, north of the ground point at each photo's centre.
    """

    def __init__(self, simulator: PairSimulator, seed: int) -> None:
        self.simulator, self.seed = simulator, seed
        self.name: list[str] = []
        self.cameras: list[Camera] = []
        place, points = [], []
        for texture in range(simulator.places):
            scene, generator = _scene(simulator, texture, seed)
            target = (torch.rand(PHOTOS_PER_TEXTURE, 2, generator=generator) - 0.5) * simulator.config.tile_side_m
            for number, aim in enumerate(target):
                camera = simulator.cameras(aim[None], generator)
                centre = render(scene, camera, 1, 1, outside="reflect").centre[0, :2]
                if bool(centre.isfinite().all()):  # else its ray leaves the map before it meets the ground
                    self.cameras.append(camera)
                    self.name.append(f"{simulator.textures[texture].name}:photo-{number}")
                    place.append(texture)
                    points.append(centre.numpy())
        self.place: NDArray[np.int64] = np.array(place, np.int64)
        self.point_m = _on_the_plane(simulator, self.place, np.array(points))
        self.position: NDArray[np.float64] | None = on_the_equator(*self.point_m.T)

    def __len__(self) -> int:
        return len(self.name)

    def load(self, index: Sequence[int]) -> Tensor:
        """Load photos ``[n, 3, S, S]``, 0 to 1, each as a camera of its own took it."""
        images = []
        for scene, row in _with_scenes(self.simulator, self.place, index, self.seed):
            image = self.simulator.shoot(scene, self.cameras[row]).image
            images.append(augment(image, _generator(self.seed, 1, row)))
        return torch.cat(images)


class HeldOutTiles:
    """Nine tiles of each texture (``training.data.base.Images``), or some of these.

    Args:
        simulator: over the held-out textures.
        seed: of the scenes and appearances.
        rows: which tiles; None: all.

    Attributes:
        centre_m: ``[N, 2]`` east, north of the tiles' centres.
    """

    def __init__(self, simulator: PairSimulator, seed: int, rows: NDArray[np.int64] | None = None) -> None:
        self.simulator, self.seed = simulator, seed
        steps = torch.tensor(STEPS_SIDES) * simulator.config.tile_side_m
        self.grid_m = torch.cartesian_prod(steps, steps)
        self.rows = np.arange(simulator.places * len(self.grid_m)) if rows is None else rows
        texture, cell = np.divmod(self.rows, len(self.grid_m))
        self.name = [f"{simulator.textures[t].name}:tile-{c}" for t, c in zip(texture, cell, strict=True)]
        self.place: NDArray[np.int64] = texture.astype(np.int64)
        self.centre_m = _on_the_plane(simulator, self.place, self.grid_m.numpy()[cell])
        self.position: NDArray[np.float64] | None = on_the_equator(*self.centre_m.T)

    def __len__(self) -> int:
        return len(self.name)

    def load(self, index: Sequence[int]) -> Tensor:
        """Load tiles ``[n, 3, S, S]``, 0 to 1, each as a map maker of its own coloured it."""
        side_m, size, images = self.simulator.config.tile_side_m, self.simulator.image_size, []
        for scene, i in _with_scenes(self.simulator, self.place, index, self.seed):
            row = int(self.rows[i])
            image = cut_tiles(scene, self.grid_m[row % len(self.grid_m)][None], side_m, size)
            images.append(augment(image, _generator(self.seed, 2, row), strength=TILE_STRENGTH))
        return torch.cat(images)


def _scene(simulator: PairSimulator, texture: int, seed: int) -> tuple[Scene, Generator]:
    """The scene of a texture, and the generator that its poses come from."""
    generator = _generator(seed, 0, texture)
    return simulator.scenes(torch.tensor([texture]), SCENE_TILE_SHARE, generator), generator


def _with_scenes(
    simulator: PairSimulator, place: NDArray[np.int64], index: Sequence[int], seed: int
) -> Iterator[tuple[Scene, int]]:
    """Each row with its scene, which neighbouring rows of one texture share."""
    for texture, rows in groupby(index, key=lambda row: int(place[row])):
        scene, _ = _scene(simulator, texture, seed)
        for row in rows:
            yield scene, int(row)


def _on_the_plane(simulator: PairSimulator, texture: NDArray[np.int64], local_m: NDArray[Any]) -> NDArray[np.float64]:
    """East, north within scenes → on the plane where all scenes lie in a row."""
    east_m = texture * SCENE_DISTANCE_SIDES * simulator.config.tile_side_m
    return np.asarray(local_m, np.float64).reshape(-1, 2) + np.stack((east_m, np.zeros(len(texture))), axis=1)


def _generator(seed: int, stream: int, number: int) -> Generator:
    return Generator().manual_seed((seed << 26) + (stream << 24) + number)
