"""How turned, how far off in scale and how slanted may a photo be? Simulated photos of places kept out of training.

    python benchmarks/robustness.py --root DATA [--model models/aerofix-lite2.onnx] [--places 56]

DATA holds the textures that the model's config names; those held out from training become a gallery of nine tiles each
(504 for 56 places). Two photos of each place are taken once as they are (camera level with the tile's north, its ground
as wide as a tile, 80 to 90° down) and again with one thing changed; the command ``aerofix`` answers them all.
"""

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _needs  # noqa: F401 - before the others
import numpy as np
import onnx
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from training.config import parse_config
from training.data.simulator.pairs import PairSimulator
from training.data.simulator.render import Camera
from training.data.simulator.scene import Scene
from training.data.simulator.textures import load_textures
from training.data.transforms import augment
from training.export.calibrate import SCENE_TILE_SHARE, Floats
from training.export.rehearsal import DEGREES_PER_M, SPACING_M, run_aerofix, save_image, write_tiles

PHOTOS_PER_PLACE = 2
SHIPPED = Path(__file__).parents[1] / "models" / "aerofix-lite2.onnx"


@dataclass(frozen=True)
class Change:
    """What differs from a photo as it should be."""

    name: str
    heading_deg: float = 0.0
    scale: float = 1.0
    pitch_deg: float | None = None


CHANGES = [
    Change("none"),
    *(Change(f"turned {turn}°", heading_deg=turn) for turn in range(30, 360, 30)),
    *(Change(f"ground x {scale}", scale=scale) for scale in (0.5, 0.7, 0.85, 1.2, 1.4, 1.8)),
    *(Change(f"pitch {pitch}°", pitch_deg=pitch) for pitch in (75, 60, 45, 35)),
]


def main() -> None:
    """Print one row for each change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the textures that the model's config names")
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--places", type=int, default=56)
    options = parser.parse_args()
    metadata = {entry.key: entry.value for entry in onnx.load(str(options.model)).metadata_props}
    config = parse_config(json.loads(metadata["aerofix.training_config"]))
    data, size = replace(config.data, root=options.root, relief_share=0.6), config.model.image_size
    held_out = load_textures(data)[1]
    places = [held_out[i] for i in np.random.default_rng(0).permutation(len(held_out))[: options.places]]
    simulator = PairSimulator(places, data, size, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder, generator = Path(name), torch.Generator().manual_seed(0)
        rows, truth = [("file", "lat", "lon", "gsd_m")], []
        for i in range(len(places)):
            scene = simulator.scenes(torch.tensor([i]), SCENE_TILE_SHARE, generator)
            rows += write_tiles(folder, i, scene, data.tile_side_m, size, generator)
            for _ in range(PHOTOS_PER_PLACE):
                photos = take(simulator, scene, data.tile_side_m, generator)
                for k, (image, _) in enumerate(photos):
                    save_image(image, folder / f"{len(truth)}_{k}.jpg")
                truth.append([centre + np.array((i * SPACING_M, 0.0)) for _, centre in photos])
        with (folder / "tiles.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        use = ("--gallery", folder / "g.gallery", "--model", options.model)
        run_aerofix("gallery", "add", folder / "tiles.csv", *use)
        title = f"{len(truth)} photos, {len(rows) - 1} tiles of {data.tile_side_m:.0f} m"
        table = Table(title=f"{metadata['aerofix.model_id']}: {title}")
        for column in ("change", "right place", "located", "right of these", "median error", "within accuracy_m"):
            table.add_column(column)
        for k, change in enumerate(CHANGES):
            paths = [folder / f"{i}_{k}.jpg" for i in range(len(truth))]
            lines = run_aerofix("localize", *paths, "--json", "--no-exif", *use).splitlines()
            answers = [json.loads(line) for line in lines]
            table.add_row(change.name, *summary(answers, [centres[k] for centres in truth], data.tile_side_m))
    Console(width=120).print(table)


def take(
    simulator: PairSimulator, scene: Scene, side_m: float, generator: torch.Generator
) -> list[tuple[torch.Tensor, Floats]]:
    """Take one photo for each change, all of one point in one light; and tell the ground at its centre, metres."""
    east_m, north_m = ((torch.rand(2, 1, generator=generator) - 0.5) * side_m).unbind()
    hfov, pitch = (low + 10 * torch.rand(1, generator=generator) for low in (55.0, 80.0))
    light = int(torch.randint(2**31, (), generator=generator))
    photos = []
    for change in CHANGES:
        distance = change.scale * side_m / 2 / torch.tan(torch.deg2rad(hfov) / 2)
        tilt = pitch if change.pitch_deg is None else torch.tensor([float(change.pitch_deg)])
        camera = Camera.looking_at(east_m, north_m, distance, torch.tensor([change.heading_deg]), tilt, hfov)
        view = simulator.shoot(scene, camera)
        image = augment(view.image, torch.Generator().manual_seed(light), strength=0.7)
        photos.append((image, view.centre[0, :2].double().numpy()))
    return photos


def summary(answers: list[dict[str, Any]], truth: list[Floats], side_m: float) -> list[str]:
    """Return the cells of one row; an answer is right within half a tile."""
    best = [answer["candidates"][0] for answer in answers]
    found = np.array([(each["lon"], each["lat"]) for each in best]) / DEGREES_PER_M
    errors = np.linalg.norm(found - np.array(truth), axis=1)
    located = np.array([answer["status"] == "located" for answer in answers])
    right = errors < side_m / 2
    radii = np.array([answer["position"]["accuracy_m"] if answer["position"] else 0.0 for answer in answers])
    return [
        f"{right.mean():.3f}",
        f"{located.mean():.3f}",
        f"{right[located].mean():.3f}" if located.any() else "-",
        f"{np.median(errors):.1f} m",
        f"{(errors < radii)[located].mean():.2f}" if located.any() else "-",
    ]


if __name__ == "__main__":
    main()
