"""How many drone views a second the simulator renders.

    python benchmarks/simulator.py [--device cuda] [--size 256] [--views 8]

The scene is 600 m wide at 0.3 m per pixel, with raised blocks; cameras look at its middle from 120 m away. Rays run
longest near 20° of pitch. The aim is 20 views a second at 256 px on two CPU cores, over a mix of pitches.
"""

from __future__ import annotations

import argparse
import time

import _needs  # noqa: F401 - before the others
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from training.data.simulator.render import Camera, render
from training.data.simulator.scene import Scene, raise_blocks

SIDE_M, GSD_M, DISTANCE_M, HFOV_DEG = 600.0, 0.3, 120.0, 60.0
PITCHES_DEG = (90, 75, 60, 45, 30, 20)


def make_scene() -> Scene:
    """Make noise over blocks: what the texture shows does not change the time it takes."""
    pixels = round(SIDE_M / GSD_M)
    height = raise_blocks(SIDE_M, SIDE_M, np.random.default_rng(0))
    texture = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    return Scene(texture, torch.from_numpy(height)[None], GSD_M)


def cameras(pitches_deg: list[float], device: torch.device) -> Camera:
    """Return one pose for each pitch, in all directions, aimed within 50 m of the middle."""
    n, generator = len(pitches_deg), torch.Generator().manual_seed(1)
    east, north = (torch.rand(2, n, generator=generator) - 0.5) * 100
    heading = torch.rand(n, generator=generator) * 360
    pose = (east, north, torch.full((n,), DISTANCE_M), heading, torch.tensor(pitches_deg), torch.full((n,), HFOV_DEG))
    return Camera.looking_at(*(value.to(device) for value in pose))


def views_per_second(scene: Scene, camera: Camera, size: int) -> float:
    """Return the best of three passes over all poses."""
    seconds = []
    for _ in range(3):
        _wait(scene)
        began = time.perf_counter()
        render(scene, camera, size, size)
        _wait(scene)
        seconds.append(time.perf_counter() - began)
    return len(camera.east_m) / min(seconds)


def _wait(scene: Scene) -> None:
    if scene.texture.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--size", type=int, default=256, help="pixels on a side of a view")
    parser.add_argument("--views", type=int, default=8, help="views at each pitch")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    scene = make_scene().to(device)

    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    table = Table("pitch", "views/s", title=f"{arguments.size} px, {where}")
    for pitch in PITCHES_DEG:
        camera = cameras([float(pitch)] * arguments.views, device)
        table.add_row(f"{pitch}°", f"{views_per_second(scene, camera, arguments.size):.1f}")
    mix = cameras([float(p) for p in PITCHES_DEG for _ in range(arguments.views)], device)
    table.add_section()
    table.add_row("mix of all", f"{views_per_second(scene, mix, arguments.size):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
