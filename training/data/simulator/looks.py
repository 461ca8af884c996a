"""Photos laid flat, as the service looks at them: a square of ground, drawn by the pitch that somebody believed in.

A look turns a photo into a square of flat ground by the homography of its camera. When the believed pitch is off, the
square comes out stretched; relief stays as the photo had it. Here the square's pixels are traced straight through the
camera into the scene, so that nothing is resampled twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.simulator.render import Camera

#: Height over width of the photo that is laid flat: most drones take 4:3, and film 16:9.
PHOTO_ASPECT = 0.75
#: Looks at lower pitches than this show more sky than ground.
LOWEST_PITCH_DEG = 30.0


def flat_rays(camera: Camera, believed_pitch_deg: Tensor, side_m: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tell where the pixels of a look come from, as rays into the scene.

    Args:
        camera: N poses; ``hfov_deg`` bounds the photo.
        believed_pitch_deg: ``[N]`` depression that the look is drawn by.
        side_m: ``[N]`` ground side of the look, if the belief is true.
        size: side of the look, px.

    Returns:
        Rays ``[N, size², 3]`` in the scene's frame, as ``Camera.rays`` gives them, and ``[N, size²]``, whether the
        photo's frame holds them.
    """
    across, upward = flat_positions(camera.up_m, believed_pitch_deg, side_m, size)
    half = torch.tan(torch.deg2rad(camera.hfov_deg) / 2)[:, None]
    inside = (across.abs() <= half) & (upward.abs() <= half * PHOTO_ASPECT)
    x, y, z = camera.axes().unbind(1)
    rays = z[:, None] + across[..., None] * x[:, None] + upward[..., None] * y[:, None]
    return rays, inside


def flat_positions(up_m: Tensor, believed_pitch_deg: Tensor, side_m: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Tell where the pixels of a look lie in the photo: right, up of its centre, in focal lengths; ``[N, size²]`` each.

    The look's centre is where the optical axis meets flat ground, and its top edge points along the camera's heading.

    Args:
        up_m: ``[N]`` height over ground.
        believed_pitch_deg: as in ``flat_rays``.
        side_m: likewise.
        size: likewise.
    """
    pitch = torch.deg2rad(believed_pitch_deg.clamp(LOWEST_PITCH_DEG, 90.0))[:, None]
    step = (torch.arange(size) + 0.5) / size - 0.5
    right = (side_m[:, None, None] * step[None, None, :]).expand(-1, size, -1).flatten(1)
    ahead = (-side_m[:, None, None] * step[None, :, None]).expand(-1, -1, size).flatten(1)
    down = up_m[:, None]
    ahead = ahead + down / torch.tan(pitch)
    # the ground point in the axes of a camera of the believed pitch
    forward = (ahead * pitch.cos() + down * pitch.sin()).clamp(min=1e-3)
    return right / forward, (ahead * pitch.sin() - down * pitch.cos()) / forward
