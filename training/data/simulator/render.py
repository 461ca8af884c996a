"""A drone camera over a scene: views with true occlusion and parallax, and the exact truth of every pixel.

Each pixel's ray is marched down to the height field in steps of about one height cell, until it dives under the
surface; bisection then places the hit to within a few millimetres. Nothing is approximated by a plane: a roof hides
what lies behind it and leans away from the camera as in a photo. Everything is batched torch and runs on CPU and GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from training.data.simulator.scene import Scene
from training.errors import TrainingError

#: More steps than this per ray are not worth their time: at 20° pitch and 40 m of relief a step is then about 1 m.
MAX_STEPS = 128
#: Empty air is crossed in steps of this many cells before the fine march begins.
AIR_STEP_CELLS = 4
#: Rays that fall by less than this share of their length are sky: from 120 m they would land 6 km away.
HORIZON_SLOPE = 0.02
#: Halvings of the last step: 2**-10 of about a metre is a millimetre.
BISECTIONS = 10
#: With ``outside="reflect"`` the mirrored map goes on for this share of its size; beyond it there is sky.
MIRRORED_SHARE = 0.5
#: What the camera sees above the horizon and beyond the map.
SKY_RGB = (0.72, 0.78, 0.85)


@dataclass(frozen=True)
class Camera:
    """A batch of camera poses in the scene's local frame; every field has shape ``[N]``, float32.

    Attributes:
        east_m, north_m: position over ground.
        up_m: height above the scene's datum.
        heading_deg: compass direction of the photo's top edge, 0 = north, 90 = east.
        pitch_deg: depression of the optical axis: 90 looks straight down, 20 far ahead.
        hfov_deg: horizontal field of view.
    """

    east_m: Tensor
    north_m: Tensor
    up_m: Tensor
    heading_deg: Tensor
    pitch_deg: Tensor
    hfov_deg: Tensor

    def __post_init__(self) -> None:
        if bool(((self.pitch_deg < 20) | (self.pitch_deg > 90)).any()):
            raise TrainingError("pitch_deg must lie in 20..90 (90 looks straight down).")
        if bool(((self.hfov_deg <= 0) | (self.hfov_deg >= 150)).any()):
            raise TrainingError("hfov_deg must lie between 0 and 150.")

    @classmethod
    def single(
        cls, east_m: float, north_m: float, up_m: float, heading_deg: float, pitch_deg: float, hfov_deg: float
    ) -> Camera:
        """Make one pose from plain numbers."""
        return cls(
            *(torch.tensor([v], dtype=torch.float32) for v in (east_m, north_m, up_m, heading_deg, pitch_deg, hfov_deg))
        )

    @classmethod
    def looking_at(
        cls,
        east_m: Tensor,
        north_m: Tensor,
        distance_m: Tensor,
        heading_deg: Tensor,
        pitch_deg: Tensor,
        hfov_deg: Tensor,
    ) -> Camera:
        """Return poses whose optical axis meets the datum plane at ``(east_m, north_m)``, ``distance_m`` away."""
        heading, pitch = torch.deg2rad(heading_deg), torch.deg2rad(pitch_deg)
        back = distance_m * torch.cos(pitch)
        return cls(
            east_m - back * torch.sin(heading),
            north_m - back * torch.cos(heading),
            distance_m * torch.sin(pitch),
            heading_deg,
            pitch_deg,
            hfov_deg,
        )

    @property
    def position(self) -> Tensor:
        """``[N, 3]`` east, north, up in metres."""
        return torch.stack((self.east_m, self.north_m, self.up_m), dim=-1)

    def axes(self) -> Tensor:
        """Return ``[N, 3, 3]``: rows are the unit vectors right, up (of the image) and forward, in east, north, up."""
        h, p = torch.deg2rad(self.heading_deg), torch.deg2rad(self.pitch_deg)
        zero = torch.zeros_like(h)
        right = torch.stack((h.cos(), -h.sin(), zero), -1)
        up = torch.stack((h.sin() * p.sin(), h.cos() * p.sin(), p.cos()), -1)
        forward = torch.stack((h.sin() * p.cos(), h.cos() * p.cos(), -p.sin()), -1)
        return torch.stack((right, up, forward), dim=1)

    def focal_px(self, width: int) -> Tensor:
        """Return ``[N]`` focal length in pixels for images of this width."""
        return width / 2 / torch.tan(torch.deg2rad(self.hfov_deg) / 2)

    def rays(self, width: int, height: int) -> Tensor:
        """Return ``[N, H·W, 3]`` ray directions through the pixel centres, row by row; their forward part is 1."""
        device = self.east_m.device
        cols = torch.arange(width, device=device) + 0.5 - width / 2
        rows = torch.arange(height, device=device) + 0.5 - height / 2
        focal = self.focal_px(width)[:, None, None]
        x = (cols[None, None, :] / focal).expand(-1, height, -1).flatten(1)
        y = (rows[None, :, None] / focal).expand(-1, -1, width).flatten(1)
        right, up, forward = self.axes().unbind(1)
        return forward[:, None] + x[..., None] * right[:, None] - y[..., None] * up[:, None]

    def project(self, points: Tensor, width: int, height: int) -> Tensor:
        """Return pixel positions ``[N, P, 2]`` (col, row; centres at .5) of points ``[N, P, 3]`` of the scene."""
        local = torch.einsum("nij,npj->npi", self.axes(), points - self.position[:, None])
        scale = self.focal_px(width)[:, None] / local[..., 2]
        return torch.stack((width / 2 + local[..., 0] * scale, height / 2 - local[..., 1] * scale), dim=-1)


@dataclass(frozen=True)
class Views:
    """What the cameras saw, and where.

    Attributes:
        image: ``[N, 3, H, W]`` RGB, 0 to 1.
        ground: ``[N, H, W, 3]`` east, north, up in metres of what each pixel shows; NaN where ``valid`` is false.
        valid: ``[N, H, W]`` the pixel shows the scene (not the sky, not beyond the map's edge).
        centre: ``[N, 3]`` the ground point at the image centre, exact (its own ray); NaN when that ray leaves the map.
        footprint: ``[N, 4, 2]`` east, north of the image corners on the ground, clockwise from top left; NaN likewise.
    """

    image: Tensor
    ground: Tensor
    valid: Tensor
    centre: Tensor
    footprint: Tensor


def render(
    scene: Scene,
    camera: Camera,
    width: int,
    height: int,
    *,
    outside: Literal["sky", "reflect"] = "sky",
    rays: Tensor | None = None,
) -> Views:
    """Render one view for each pose.

    Args:
        scene: one scene for all poses, or one for each.
        camera: N poses.
        width: of the views in pixels.
        height: of the views in pixels.
        outside: what lies beyond the map: ``sky`` colour, or the map mirrored at its edges (for training, where a
            border of plain colour would teach the wrong thing). ``valid`` is the same for both.
        rays: ``[N, H·W, 3]`` what the pixels look along; default: as through a pinhole, ``camera.rays``.

    Raises:
        TrainingError: the numbers of scenes and poses do not fit, or a camera is inside the ground.
    """
    n = camera.east_m.shape[0]
    if scene.texture.shape[0] not in (1, n):
        raise TrainingError(f"{scene.texture.shape[0]} scenes for {n} poses: give one scene, or one for each pose.")
    if bool((camera.up_m <= surface_m(scene, camera.position[:, None, :2])[:, 0]).any()):
        raise TrainingError("A camera is below the surface: raise up_m (it counts from the scene's lowest point).")
    edges = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [0.0, 0.0]], device=camera.east_m.device)
    half = torch.tan(torch.deg2rad(camera.hfov_deg) / 2)[:, None]
    right, up, forward = camera.axes().unbind(1)
    key_rays = (
        forward[:, None]
        + (edges[:, :1] * half[..., None]) * right[:, None]
        + (edges[:, 1:] * half[..., None] * height / width) * up[:, None]
    )
    rays = torch.cat((camera.rays(width, height) if rays is None else rays, key_rays), dim=1)
    ground, hit = _march(scene, camera.position[:, None], rays, margin=0.01 if outside == "sky" else MIRRORED_SHARE)
    valid = hit & _inside(scene, ground)
    pixels, pixel_valid = ground[:, :-5], valid[:, :-5]
    image = _colour(scene, pixels, "border" if outside == "sky" else "reflection")
    keep = (pixel_valid if outside == "sky" else hit[:, :-5])[:, None]
    image = torch.where(keep, image, torch.tensor(SKY_RGB, device=image.device)[None, :, None])
    nan = torch.tensor(float("nan"), device=image.device)
    truth = torch.where(valid[..., None], ground, nan)
    return Views(
        image=image.reshape(n, 3, height, width),
        ground=truth[:, :-5].reshape(n, height, width, 3),
        valid=pixel_valid.reshape(n, height, width),
        centre=truth[:, -1],
        footprint=truth[:, -5:-1, :2],
    )


def unit_grid(scene: Scene, points: Tensor) -> Tensor:
    """Turn east, north in metres into ``grid_sample``'s coordinates (-1..1, row down), of texture and heights alike."""
    return torch.stack((points[..., 0] / (scene.width_m / 2), -points[..., 1] / (scene.depth_m / 2)), dim=-1)


def _inside(scene: Scene, points: Tensor) -> Tensor:
    return (points[..., 0].abs() <= scene.width_m / 2) & (points[..., 1].abs() <= scene.depth_m / 2)


def surface_m(scene: Scene, points: Tensor) -> Tensor:
    """Return the height under points: ``[N, P, ≥2]`` east, north → ``[N, P]`` metres (bilinear, edge continued)."""
    n = points.shape[0]
    grid = unit_grid(scene, points)[:, :, None]
    field = scene.height_m[:, None].expand(n, -1, -1, -1)
    return F.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=False)[:, 0, :, 0]


def _march(scene: Scene, origin: Tensor, rays: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """First point of each ray on the surface: ``([N, P, 3], hit [N, P])``. A ray that flies on has ``hit`` false.

    View by view, so that the working set stays in cache and only rays still in the air are moved on.
    """
    points, hits = [], []
    for i in range(rays.shape[0]):
        field = scene.height_m[i if scene.height_m.shape[0] > 1 else 0][None, None]
        t, hit = _first_hits(scene, field, origin[i, 0], rays[i], margin)
        points.append(origin[i] + t[:, None] * rays[i])
        hits.append(hit)
    return torch.stack(points), torch.stack(hits)


def _first_hits(scene: Scene, field: Tensor, origin: Tensor, rays: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Ray parameters ``[P]`` of the first hits on one height field ``[1, 1, h, w]``, and whether each ray hit.

    Rays end where they leave the map, widened by ``margin``.
    """
    low, high = float(field.min()), float(field.max())
    cell_m = min(scene.width_m / field.shape[3], scene.depth_m / field.shape[2])
    earthward = rays[:, 2] < -HORIZON_SLOPE
    down = rays[:, 2].clamp(max=-HORIZON_SLOPE)
    flat = rays[:, :2].norm(dim=-1).clamp(min=1e-6)
    start = ((high - origin[2]) / down).clamp(min=0)
    half = rays.new_tensor((scene.width_m, scene.depth_m)) / 2 * (1 + margin)
    exits = (half * rays[:, :2].sign() - origin[:2]) / (rays[:, :2] + 1e-9 * rays[:, :2].sign())
    end = torch.minimum((low - origin[2]) / down, torch.where(rays[:, :2] == 0, torch.inf, exits).amin(1))
    start = torch.minimum(start, end.clamp(min=0))
    end = torch.maximum(end, start)
    longest = float(torch.where(earthward, (end - start) * flat, 0.0).max())
    steps = max(1, min(MAX_STEPS, math.ceil(longest / cell_m)))
    to_grid = rays.new_tensor((2 / scene.width_m, -2 / scene.depth_m))
    ray = _Ray(field, origin[:2] * to_grid, rays[:, :2] * to_grid, origin[2], rays[:, 2])

    start = ray.skip_air(start, end, max(1, steps // AIR_STEP_CELLS), reach_m=longest, cell_m=cell_m)
    step = (end - start) / steps
    step = torch.maximum(step, torch.minimum(cell_m / flat, end - start))
    above, below = start.clone(), end.clone()
    flying = earthward.nonzero()[:, 0]
    while flying.numel():
        part = ray.only(flying)
        t = torch.minimum(above[flying] + step[flying], end[flying])
        under = part.clearance(t) <= 0
        arrived = under | (t >= end[flying])
        below[flying] = torch.where(arrived, t, below[flying])
        above[flying] = torch.where(arrived, above[flying], t)
        flying = flying[~arrived]
    for _ in range(BISECTIONS if high > low else 0):
        t = (above + below) / 2
        under = ray.clearance(t) <= 0
        above, below = torch.where(under, above, t), torch.where(under, t, below)
    hit = earthward & (ray.clearance(below) < 0.05 + 1e-3 * below)
    return below, hit


@dataclass(frozen=True)
class _Ray:
    """P rays over one height field, in the units of ``grid_sample``; ``t`` counts along the optical axis, in metres."""

    field: Tensor  # [1, 1, h, w]
    origin_grid: Tensor  # [2]
    step_grid: Tensor  # [P, 2]
    origin_up: Tensor  # []
    step_up: Tensor  # [P]

    def only(self, index: Tensor) -> _Ray:
        """The rays at these positions."""
        return _Ray(self.field, self.origin_grid, self.step_grid[index], self.origin_up, self.step_up[index])

    def sample(self, field: Tensor, t: Tensor, mode: str) -> Tensor:
        """Heights ``[P]`` under the rays at ``t``."""
        grid = torch.addcmul(self.origin_grid, t[:, None], self.step_grid)[None, :, None]
        return F.grid_sample(field, grid, mode=mode, padding_mode="border", align_corners=False)[0, 0, :, 0]

    def clearance(self, t: Tensor) -> Tensor:
        """Height of the rays over the surface at ``t``, ``[P]`` metres; negative under it."""
        return self.origin_up + t * self.step_up - self.sample(self.field, t, "bilinear")

    def skip_air(self, start: Tensor, end: Tensor, steps: int, *, reach_m: float, cell_m: float) -> Tensor:
        """Move ``start`` on to the last place before which no ray can have met anything, in big steps over maxima."""
        block = max(1, math.ceil(reach_m / steps / cell_m))
        highest = F.max_pool2d(self.field, block, ceil_mode=True)
        highest = F.max_pool2d(highest, 3, stride=1, padding=1)
        # the pooled grid may hang over the field's edge: stretch the coordinates by the same share
        over = self.step_grid.new_tensor(
            (
                self.field.shape[3] / (highest.shape[3] * block),
                self.field.shape[2] / (highest.shape[2] * block),
            )
        )
        shifted = _Ray(highest, (self.origin_grid + 1) * over - 1, self.step_grid * over, self.origin_up, self.step_up)
        step, reached, airborne = (end - start) / steps, start, torch.ones_like(start, dtype=torch.bool)
        for k in range(steps - 1):
            t = start + k * step
            next_up = self.origin_up + (t + step) * self.step_up
            airborne = airborne & (next_up > shifted.sample(highest, t, "nearest"))
            reached = torch.where(airborne, t + step, reached)
        return reached


def _colour(scene: Scene, points: Tensor, padding: str) -> Tensor:
    """Texture under the points, ``[N, 3, P]``, with steep faces darkened: a wall is not lit like the roof above it."""
    n = points.shape[0]
    texture = scene.texture.expand(n, -1, -1, -1)
    grid = unit_grid(scene, points)[:, :, None]
    colour = F.grid_sample(texture, grid, mode="bilinear", padding_mode=padding, align_corners=False)[..., 0]
    if float(scene.height_m.max()) == float(scene.height_m.min()):
        return colour
    d = 0.5
    slope_e = surface_m(scene, points[..., :2] + points.new_tensor((d, 0.0))) - surface_m(
        scene, points[..., :2] - points.new_tensor((d, 0.0))
    )
    slope_n = surface_m(scene, points[..., :2] + points.new_tensor((0.0, d))) - surface_m(
        scene, points[..., :2] - points.new_tensor((0.0, d))
    )
    slope = torch.hypot(slope_e, slope_n) / (2 * d)
    sunward = (slope_e - slope_n) / (2 * d) / slope.clamp(min=1e-6)  # light from the north-west, as maps are shaded
    wall = ((slope - 1.0) / 2.0).clamp(0, 1)  # 0 below 45°, 1 from about 72°
    return colour * (1 - wall * (0.35 + 0.2 * sunward))[:, None]
