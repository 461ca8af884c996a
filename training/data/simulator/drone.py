"""A drone that flies at random over scenes, and the looks that the service takes at its photos."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from training.data.simulator.looks import flat_rays
from training.data.simulator.render import Camera, Views, render
from training.data.simulator.scene import Scene

if TYPE_CHECKING:
    from training.data.simulator.simulated import SimulatedConfig

#: Width of a photo over the side of the square that is laid flat out of it: 4:3 photos have corners to spare.
FLAT_WIDER = (1.0, 1.5)
#: Cameras fly at least as high as this: over hills of 12 m and houses of 15 m (``raise_blocks``).
LOWEST_M = 28.0


class Drone:
    """Takes photos of ground points from random poses.

    Args:
        config: how it flies.
        image_size: side of photos, px.
    """

    def __init__(self, config: SimulatedConfig, image_size: int) -> None:
        self.config, self.image_size = config, image_size

    def photos(self, scene: Scene, target: Tensor, generator: Generator) -> Views:
        """Take views from random poses aimed at ``target [N, 2]`` (east, north), before any change of appearance."""
        return self.shoot(scene, self.cameras(target, generator))

    def shoot(self, scene: Scene, camera: Camera) -> Views:
        """Take views from given poses."""
        return render(scene, camera, self.image_size, self.image_size, outside="reflect")

    def looks(self, scene: Scene, target: Tensor, generator: Generator) -> Views:
        """Take views of ``target [N, 2]``, some of them laid flat; beyond a photo's frame a look is plain grey."""
        n, config = len(target), self.config
        if not config.flat_share:
            return self.photos(scene, target, generator)
        flat = torch.rand(n, generator=generator) < config.flat_share
        wide = torch.where(flat, between(FLAT_WIDER, n, generator), torch.ones(n))
        camera = self.cameras(target, generator, wider=wide)
        wrong = torch.rand(n, generator=generator) < 0.5
        error = between((-config.flat_error_deg, config.flat_error_deg), n, generator) * wrong
        distance_m = camera.up_m / torch.sin(torch.deg2rad(camera.pitch_deg))
        side_m = 2 * torch.tan(torch.deg2rad(camera.hfov_deg) / 2) * distance_m
        rays, inside = flat_rays(camera, camera.pitch_deg + error, side_m / wide, self.image_size)
        rays = torch.where(flat[:, None, None], rays, camera.rays(self.image_size, self.image_size))
        shape = (n, self.image_size, self.image_size)
        inside = (inside | ~flat[:, None]).reshape(shape)
        views = render(scene, camera, *shape[1:], outside="reflect", rays=rays)
        grey = torch.rand(n, 1, 1, 1, generator=generator)
        return replace(
            views,
            image=torch.where(inside[:, None], views.image, grey),
            ground=torch.where(inside[..., None], views.ground, torch.nan),
            valid=views.valid & inside,
        )

    def cameras(self, target: Tensor, generator: Generator, *, wider: Tensor | float = 1.0) -> Camera:
        """Draw cameras that look at ``target [N, 2]`` and see ground about ``wider`` times as wide as the tile."""
        n, config = target.shape[0], self.config
        nadir = torch.rand(n, generator=generator) < config.nadir_share
        steep = (max(config.pitch_deg[0], config.pitch_deg[1] - 10), config.pitch_deg[1])
        pitch = torch.where(nadir, between(steep, n, generator), between(config.pitch_deg, n, generator))
        hfov = between(config.hfov_deg, n, generator)
        side = config.tile_side_m * between(config.scale, n, generator) * wider
        distance = side / 2 / torch.tan(torch.deg2rad(hfov) / 2)
        lowest = LOWEST_M / torch.sin(torch.deg2rad(pitch))
        heading = between(config.heading_deg, n, generator)
        return Camera.looking_at(target[:, 0], target[:, 1], torch.maximum(distance, lowest), heading, pitch, hfov)


def between(bounds: tuple[float, float], n: int, generator: Generator) -> Tensor:
    """Draw ``[n]`` uniform numbers."""
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(n, generator=generator)
