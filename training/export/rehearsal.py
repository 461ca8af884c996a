"""Photos of held-out places, answered by the service itself: what a calibration of matches is fitted on.

How many positions of a photo agree with a tile, and how far off the position is that they give, depends on how the
service matches. So it is asked: a map and photos are written as files, and the command ``aerofix`` is run on them, as
its user would. Galleries of many sizes come from one, by search circles: scenes lie in a row on the equator, those of
one folder side by side, because a real map is all of one kind of country. The service chooses its windows itself, of
several levels; lengths are in sides of the window that it puts first.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.data.base import on_the_equator
from training.data.simulator.pairs import PairSimulator, cut_tiles
from training.data.simulator.scene import Scene
from training.data.simulator.simulated import SimulatedConfig
from training.data.simulator.textures import Texture
from training.data.transforms import augment
from training.errors import TrainingError
from training.export.calibrate import OUTSIDE_SHARE, SCENE_TILE_SHARE, Floats, require_enough

#: Metres between scenes: more than any scene is wide.
SPACING_M = 1000.0
PHOTOS_PER_SCENE = 2
#: Search circles, each asked for as many photos: starting the command costs more than a dozen answers.
CIRCLES, PHOTOS_PER_CIRCLE = 40, 30
#: A scene is so many tile sides wide.
SCENE_SIDES = round(1 / SCENE_TILE_SHARE)
#: Candidates of an answer that are looked at: as many as the service shows.
CANDIDATES = 100
#: Every so many scenes one is left out of the fit, to judge it by.
JUDGED_SCENES = 4
#: Quality of the photos' JPEG, as cameras save them.
JPEG_QUALITY = 85
#: On the equator, of either axis.
DEGREES_PER_M = float(on_the_equator(np.array([1.0]), np.array([0.0]))[0, 1])


@dataclass(frozen=True)
class Rehearsal:
    """M answers of known truth, with C candidates each; lengths in sides of the answer's first candidate.

    Attributes:
        scores: ``[M, C]`` cosines; -inf where an answer has fewer candidates.
        support: ``[M, C]`` what matches are worth, as the service counts it; 0 for candidates that were not matched.
        centres: ``[M, C, 2]`` of the candidates' tiles, east and north.
        positions: ``[M, 2]`` what was answered.
        truth: ``[M, 2]`` ground point at the photo's centre; NaN when its place was not searched.
        spread: ``[M]`` standard deviation of the positions by the spread of their matches; NaN where the photo was not
            laid on the ground.
        judged: bool ``[M]``, answers that are left out of the fit, to be judged by it.
        real: bool ``[M]``, answers to photos of a camera.
    """

    scores: Floats
    support: Floats
    centres: Floats
    positions: Floats
    truth: Floats
    spread: Floats
    judged: NDArray[np.bool_]
    real: NDArray[np.bool_]

    @property
    def errors(self) -> Floats:
        """``[M]`` distance from the truth to what was answered."""
        errors: Floats = np.linalg.norm(self.positions - self.truth, axis=1)
        return errors

    def of(self, rows: NDArray[np.bool_]) -> Rehearsal:
        """Return some of the answers."""
        return Rehearsal(**{name: value[rows] for name, value in vars(self).items()})

    def and_of(self, other: Rehearsal) -> Rehearsal:
        """Return all answers of both."""
        return Rehearsal(**{name: np.concatenate([value, vars(other)[name]]) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Stage:
    """Held-out places as files in ``folder``.

    Attributes:
        truth_m: ``[P, 2]`` ground point at the centre of each photo, east and north along the row of scenes; NaN for a
            photo of the sky.
        scenes: number of places; photo p is of place ``p // PHOTOS_PER_SCENE``.
        seed: of the search circles.
        circles: how many there are; None: ``CIRCLES``.
    """

    folder: Path
    truth_m: Floats
    scenes: int
    seed: int
    circles: int | None = None

    def rehearse(self, model: Path) -> Rehearsal:
        """Let the service answer with a model; the map is embedded once, whatever the calibration.

        Args:
            model: the ONNX file. Its calibration must call nothing ``not_found``, or there is no position to judge.

        Raises:
            TrainingError: the service refuses the model.
        """
        gallery = self.folder / "held-out.gallery"
        if not gallery.exists():
            run_aerofix("gallery", "add", self.folder / "scenes.csv", "--gallery", gallery, "--model", model)
        answers, truth, asked = list[Any](), list[Floats](), list[NDArray[np.int64]]()
        for middle_m, radius_m, photos in self._circles():
            prior = f"--prior=0,{middle_m * DEGREES_PER_M:.9f},{radius_m:.1f}"
            paths = [self.folder / f"photo{p}.jpg" for p in photos]
            wanted = ("--json", "--no-exif", "--top-k", CANDIDATES, prior)
            lines = run_aerofix("localize", *paths, *wanted, "--gallery", gallery, "--model", model)
            answers += map(json.loads, lines.splitlines())
            known = self.truth_m[photos]
            truth.append(np.where(np.abs(known[:, :1] - middle_m) < radius_m, known, np.nan))
            asked.append(photos)
        scene = np.concatenate(asked) // PHOTOS_PER_SCENE
        places = np.concatenate(truth)[:, ::-1] * DEGREES_PER_M  # latitudes are what lies north
        return tabulate(answers, places, scene % JUDGED_SCENES == 0, real=False)

    def _circles(self) -> Iterator[tuple[float, float, NDArray[np.int64]]]:
        """Middle along the row and radius of search circles, in metres, and the photos to ask each for.

        Circles hold 5 scenes to nearly all, evenly in the logarithm; ``OUTSIDE_SHARE`` of the photos are of others.
        """
        rng = np.random.default_rng(self.seed)
        away = round(OUTSIDE_SHARE * PHOTOS_PER_CIRCLE)
        scene = np.arange(len(self.truth_m)) // PHOTOS_PER_SCENE
        seen = ~np.isnan(self.truth_m[:, 0])
        for _ in range(self.circles or CIRCLES):
            size = int(np.exp(rng.uniform(np.log(5), np.log(self.scenes * (1 - OUTSIDE_SHARE)))))
            first = int(rng.integers(self.scenes - size + 1))
            inside = (scene >= first) & (scene < first + size)
            some = rng.permutation(np.flatnonzero(inside & seen))[: PHOTOS_PER_CIRCLE - away]
            others = rng.permutation(np.flatnonzero(~inside & seen))[:away]
            yield (first + (size - 1) / 2) * SPACING_M, size / 2 * SPACING_M, np.concatenate((some, others))


def write_stage(
    folder: Path,
    textures: list[Texture],
    data: SimulatedConfig,
    *,
    image_size: int,
    seed: int,
    circles: int | None = None,
) -> Stage:
    """Render each texture as a piece of a map, and photos that look at it, of another date if it has one.

    Args:
        folder: to write to, as ``scenes.csv``, ``scene….png`` and ``photo….jpg``.
        textures: held-out places.
        data: how the drone flies over them.
        image_size: side of photos, px, and pixels of the map for each ``tile_side_m``.
        seed: of views and, later, search circles.
        circles: how many of those; None: ``CIRCLES``.

    Raises:
        TrainingError: there are too few textures.
    """
    require_enough(textures)
    simulator = PairSimulator(sorted(textures, key=lambda t: t.group), data, image_size, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    truth = list[Floats]()
    with (folder / "scenes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "lat", "lon", "gsd_m"))
        for i in range(len(textures)):
            scene, mapped = simulator.dated_scenes(torch.tensor([i]), SCENE_TILE_SHARE, generator)
            rows.writerow(write_scene(folder, i, mapped, data.tile_side_m, image_size, generator))
            for _ in range(PHOTOS_PER_SCENE):
                target = (torch.rand(1, 2, generator=generator) - 0.5) * data.tile_side_m
                view = simulator.photos(scene, target, generator)
                save_image(augment(view.image, generator), folder / f"photo{len(truth)}.jpg")
                truth.append(view.centre[0, :2].double().numpy() + np.array((i * SPACING_M, 0.0)))
    return Stage(folder, np.array(truth), len(textures), seed, circles)


def write_scene(
    folder: Path, number: int, scene: Scene, tile_side_m: float, image_size: int, generator: torch.Generator
) -> tuple[str, str, str, float]:
    """Render scene ``number`` of the row from above, two ``tile_side_m`` wide; returns its file, lat, lon and gsd."""
    name, origin = f"scene{number}.png", torch.zeros(1, 2)
    picture = cut_tiles(scene, origin, SCENE_SIDES * tile_side_m, SCENE_SIDES * image_size)
    save_image(augment(picture, generator, strength=0.3), folder / name)
    ((lat, lon),) = on_the_equator(np.array([number * SPACING_M]), np.zeros(1))
    return name, f"{lat:.9f}", f"{lon:.9f}", tile_side_m / image_size


def save_image(image: Tensor, path: Path) -> None:
    """Write one picture ``[1, 3, H, W]``, 0 to 1, as PNG or as a camera's JPEG."""
    pixels = image[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def tabulate(answers: list[dict[str, Any]], places: Floats, judged: NDArray[np.bool_], *, real: bool) -> Rehearsal:
    """Write answers of the service as arrays, each from the middle of its first candidate.

    Args:
        answers: the JSON of each, with candidates and a position.
        places: ``[M, 2]`` lat, lon of what each photo shows; NaN where nothing that was searched shows it.
        judged: see ``Rehearsal``.
        real: whether a camera took the photos.
    """
    shape = (len(answers), CANDIDATES)
    scores, centres = np.full(shape, -np.inf), np.zeros((*shape, 2))
    support, spread = np.zeros(shape), np.full(len(answers), np.nan)
    positions, truths = np.zeros((len(answers), 2)), np.zeros((len(answers), 2))
    for row, answer in enumerate(answers):
        first, position = answer["candidates"][0]["tile"], answer["position"]
        west, _, east, _ = first["bounds"]
        across = DEGREES_PER_M / np.array([np.cos(np.radians(first["lat"])), 1.0])  # degrees of a metre, lon and lat
        side_m = (east - west) / across[0]

        def sides(lat: float, lon: float, first: dict[str, Any] = first, unit: Floats = across * side_m) -> Floats:
            off: Floats = (np.array([lon, lat]) - (first["lon"], first["lat"])) / unit
            return off

        for column, candidate in enumerate(answer["candidates"]):
            scores[row, column], support[row, column] = candidate["score"], candidate["support"] or 0
            centres[row, column] = sides(candidate["tile"]["lat"], candidate["tile"]["lon"])
        positions[row], truths[row] = sides(position["lat"], position["lon"]), sides(*places[row])
        if position["heading_deg"] is not None:
            spread[row] = position["sigma_m"] / side_m
    of_camera = np.full(len(answers), real)
    return Rehearsal(scores, support, centres, positions, truths, spread, judged, of_camera)


def run_aerofix(*arguments: object) -> str:
    """Run the command; exit codes 0 (located) and 3 (not located) are answers."""
    command = [sys.executable, "-m", "service.cli.main", *map(str, arguments)]
    patient = os.environ | {"AEROFIX_DEADLINE_S": "600"}  # the looks of a photo must not depend on how busy this is
    done = subprocess.run(command, capture_output=True, text=True, env=patient)  # noqa: S603  # our own command
    if done.returncode not in {0, 3}:
        raise TrainingError(f"aerofix {arguments[0]} failed on the exported model: {done.stderr.strip()}")
    return done.stdout
