"""Photos over a map, written to a folder: what ``aerofix-train simulate`` makes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.data.simulator.render import Camera, Views, render
from training.data.simulator.scene import Scene, load_scene

#: 4:3, long enough to look at, short enough to render in a tenth of a second.
PHOTO_PX = (1024, 768)


def simulate_flight(map_path: Path, out: Path, count: int, *, height_path: Path | None = None, seed: int = 0) -> int:
    """Take ``count`` photos from random poses over a map and write them with ``truth.json``.

    Poses: 80 to 130 m over the map's highest point, any heading, pitch 45 to 90° (two thirds steeper than 80°), field
    of view 50 to 75°, aimed at least 15 % of the map's size inside its edges.

    Raises:
        TrainingError: the map or height raster cannot be used.
    """
    scene = load_scene(map_path, height_path, seed=seed)
    rng = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    truths = []
    for number in range(1, count + 1):
        east, north = rng.uniform(-0.35, 0.35, 2) * (scene.width_m, scene.depth_m)
        height_m = float(scene.height_m.max()) + rng.uniform(80, 130)
        pitch = rng.uniform(80, 90) if rng.random() < 2 / 3 else rng.uniform(45, 80)
        pose = (rng.uniform(0, 360), pitch, rng.uniform(50, 75))
        aim = (
            torch.tensor([v], dtype=torch.float32)
            for v in (east, north, height_m / math.sin(math.radians(pitch)), *pose)
        )
        camera = Camera.looking_at(*aim)
        views = render(scene, camera, *PHOTO_PX)
        name = f"photo-{number:04d}.jpg"
        pixels = (views.image[0].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(out / name, quality=92)
        truths.append({"file": name, **truth(scene, camera, views)})
    (out / "truth.json").write_text(json.dumps(truths, indent=1))
    return count


def truth(scene: Scene, camera: Camera, views: Views) -> dict[str, Any]:
    """Tell what is true of a single view: the ground point at its centre, its footprint and the camera's pose.

    Positions are WGS84 ``lat, lon``; ``position`` and footprint corners are null where the ray leaves the map.
    """

    def place(point: torch.Tensor) -> dict[str, float] | None:
        if bool(torch.isnan(point[0])):
            return None
        lat, lon = scene.latlon(float(point[0]), float(point[1]))
        return {"lat": round(lat, 8), "lon": round(lon, 8)}

    return {
        "position": place(views.centre[0]),
        "footprint": [place(corner) for corner in views.footprint[0]],
        "camera": {
            **(place(camera.position[0]) or {}),
            "up_m": round(float(camera.up_m[0]), 2),
            "heading_deg": round(float(camera.heading_deg[0]), 2),
            "pitch_deg": round(float(camera.pitch_deg[0]), 2),
            "hfov_deg": round(float(camera.hfov_deg[0]), 2),
        },
    }
