"""The data set that needs nothing but aerial pictures: drone views of textures, new for every batch.

To judge a model there are held-out textures: photos of each, against nine half-overlapping tiles of each. A tile is
right when the photo's ground point lies within half a tile side of its centre, as ``training/export/calibrate.py``
counts.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from training.data.base import Task
from training.data.images import InputSize
from training.data.simulator.held_out import HeldOutPhotos, HeldOutTiles
from training.data.simulator.pairs import PairSimulator
from training.data.simulator.textures import Texture, load_textures, map_windows
from training.errors import TrainingError
from training.schema import STRICT, Ordered, Positive, Probability, Share

_Pixels = Annotated[int, Field(ge=16)]
_Pitch = Annotated[float, Field(ge=20, le=90)]  # what the simulator's camera can do
_Quality = Annotated[int, Field(ge=5, le=100)]
_FieldOfView = Annotated[float, Field(gt=0, lt=150)]

#: Share of a tile side within which an answer is right.
RIGHT_WITHIN_SIDES = 0.5


@dataclass(frozen=True, config=STRICT)
class SimulatedConfig:
    """Textures to simulate from, and how the drone flies over them."""

    root: Path = Path(".")  # folder that the globs count from
    textures: tuple[str, ...] = ()  # globs of images or GeoTIFFs
    map: Path | None = None  # instead of textures: one GeoTIFF, cut by its own scale; all of it is trained on
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # textures kept for validation and calibration
    # pairs of globs: aligned pictures of the same places on two dates, in the order of their names
    dates: tuple[tuple[str, str], ...] = ()
    dates_held_out: tuple[str, ...] = ()  # of these, the first files of places kept to be judged by
    dates_share: Annotated[float, Field(ge=0, lt=1)] = 0.5  # of the pairs of an epoch that show two dates
    tile_side_m: Positive = 86.0  # ground side of a map tile
    tile_share: Annotated[tuple[Share, Share], Ordered] = (0.5, 0.75)  # tile side over texture window side
    window_px: Annotated[tuple[_Pixels, _Pixels], Ordered] = (360, 700)  # side of the window cut from a texture
    offset_share: Annotated[float, Field(ge=0, le=0.5)] = 0.25  # photo centre off tile centre, tile sides, each axis
    scale: Annotated[tuple[Positive, Positive], Ordered] = (0.75, 1.35)  # ground side of the photo over the tile side
    pitch_deg: Annotated[tuple[_Pitch, _Pitch], Ordered] = (50.0, 90.0)
    nadir_share: Probability = 0.6  # share of photos with a pitch within 10° of straight down
    heading_deg: tuple[float, float] = (0.0, 360.0)  # compass direction of the photo's top edge
    hfov_deg: Annotated[tuple[_FieldOfView, _FieldOfView], Ordered] = (35.0, 80.0)
    quarter_turns: bool = False  # turn the photo by 0, 90, 180 or 270° besides, so that ±50° of heading become all
    relief_share: Probability = 0.6  # share of scenes with raised blocks; the rest is flat
    flat_share: Probability = 0.0  # photos laid flat, as the service looks at them; the rest stays as taken
    flat_error_deg: Annotated[float, Field(ge=0, le=30)] = (
        15.0  # half of those are laid flat by a pitch off by up to this
    )
    recolour_share: Probability = 0.0  # photos and tiles that take the colours of another picture of the batch
    jpeg_quality: Annotated[tuple[_Quality, _Quality], Ordered] | None = None  # half of all; None: never compressed
    cache: Path | None = None  # folder that keeps views as bytes, so that rendering is done once
    views: Annotated[int, Field(ge=1)] = 8  # of each place that are kept there, and drawn from
    # pitch of all test photos, [45, 60] for oblique ones; None: as in training
    test_pitch_deg: Annotated[tuple[_Pitch, _Pitch], Ordered] | None = None
    dataset: Literal["simulated"] = "simulated"


class Simulated:
    """Textures to train on, and held-out ones to be judged by.

    Args:
        config: the textures, and how the drone flies.
        size: of the images that the model wants.
        seed: of the scenes.

    Raises:
        TrainingError: a glob matches nothing, or a file is no picture.
    """

    def __init__(self, config: SimulatedConfig, size: InputSize, *, seed: int) -> None:
        self.size, self.seed = size, seed
        if config.map is None:
            self.config = config
            self.textures, self.held_out = load_textures(config)
        else:
            self.textures, side_px = map_windows(config)
            self.config = dataclasses.replace(config, window_px=(side_px, side_px))
            self.held_out = list[Texture]()

    def train(self) -> PairSimulator:
        """Make one pair for each texture, new every time."""
        return PairSimulator(self.textures, self.config, self.size.image_size, seed=self.seed)

    def tasks(self) -> list[Task]:
        """Return ``drone_to_satellite`` and ``satellite_to_drone`` over the held-out textures, alike for the same seed.

        Positions are right within a scene; the scenes themselves are laid out in a row on the equator.

        Raises:
            TrainingError: no texture is held out.
        """
        if not self.held_out:
            raise TrainingError("No texture is held out to judge by: raise data.held_out_share, or leave data.map out.")
        config = self.config
        if config.test_pitch_deg is not None:
            config = dataclasses.replace(config, pitch_deg=config.test_pitch_deg, nadir_share=0.0)
        simulator = PairSimulator(self.held_out, config, self.size.image_size, seed=self.seed)
        photos, tiles = HeldOutPhotos(simulator, self.seed), HeldOutTiles(simulator, self.seed)
        gap = (photos.point_m[:, None] - tiles.centre_m[None]) / config.tile_side_m
        right = np.hypot(*np.moveaxis(gap, 2, 0)) <= RIGHT_WITHIN_SIDES
        shown = (np.abs(gap).max(2) <= 0.5) & ~right
        asked = np.flatnonzero(right.any(0))
        side_m = np.full(len(tiles), config.tile_side_m)
        return [
            Task("drone_to_satellite", photos, tiles, _rows(right), _rows(shown), side_m),
            Task(
                "satellite_to_drone",
                HeldOutTiles(simulator, self.seed, asked),
                photos,
                _rows(right.T[asked]),
                _rows(shown.T[asked]),
            ),
        ]


def _rows(matrix: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(row) for row in matrix]
