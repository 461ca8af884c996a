"""SUES-200 (Zhu et al., 2023): 200 places seen from 150, 200, 250 and 300 m, and by a satellite.

120 places are for training and 80, by a fixed list, for testing. The test galleries hold all 200 places: those of
training are the distractors. Published figures are of one height each, trained and tested (``heights_m=[150]``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from training.data.base import Task
from training.data.images import FilePairs, InputSize
from training.data.layout import Layout
from training.data.university1652 import all_pairs, both_directions, require_places
from training.schema import STRICT

TREE = """
  drone_view_512/0001/150/0.jpg ..  (a folder with "drone" in its name; heights 150, 200, 250, 300)
  satellite-view/0001/0.png
as it is published, or as the authors' script splits it
  Training/150/drone/ID/..          Training/150/satellite/ID/0.png
  Testing/150/query_drone/ID/..     Testing/150/gallery_drone/ID/..
  Testing/150/query_satellite/ID/.. Testing/150/gallery_satellite/ID/.."""

#: The 80 places of the official test split; the other 120 are for training.
# fmt: off
TEST_IDS = frozenset(
    f"{number:04}" for number in (
        8, 12, 14, 17, 18, 19, 22, 23, 35, 38, 40, 41, 42, 46, 47, 48, 49, 50, 52, 53, 54, 59, 61, 62, 63, 65,
        68, 71, 72, 75, 78, 79, 83, 92, 93, 95, 98, 99, 107, 108, 109, 110, 111, 112, 114, 115, 117, 121, 122,
        124, 128, 130, 131, 133, 135, 136, 138, 140, 143, 144, 150, 153, 154, 161, 162, 164, 165, 170, 172, 173,
        175, 176, 177, 178, 181, 188, 189, 190, 194, 195,
    )
)
# fmt: on

Height = Literal[150, 200, 250, 300]
Places = dict[str, list[Path]]


@dataclass(frozen=True, config=STRICT)
class SUES200Config:
    """Where the data set is, and which heights of it are used."""

    root: Path  # of the raw or of the split layout
    heights_m: Annotated[tuple[Height, ...], Field(min_length=1)] = (150, 200, 250, 300)
    dataset: Literal["sues200"] = "sues200"


class SUES200:
    """The data set; every folder is listed on opening.

    Args:
        config: where it is.
        size: of the images that the model wants.

    Raises:
        TrainingError: the folder is not laid out as ``TREE`` shows, or is split by another list.
    """

    def __init__(self, config: SUES200Config, size: InputSize) -> None:
        self.layout, self.size = Layout("SUES-200", config.root, TREE), size
        self.views: dict[int, dict[str, Places]] = {}  # by height, then as in Testing/, and drone and satellite
        raw = None if (config.root / "Training").is_dir() else self._raw_folders()
        for height_m in config.heights_m:
            self.views[height_m] = self._split(height_m) if raw is None else self._raw(height_m, *raw)
            self._check(height_m)

    def train(self) -> FilePairs:
        """Pair every drone image, of all heights, with the satellite image of its place."""
        heights = [all_pairs(views["drone"], views["satellite"], self.size) for views in self.views.values()]
        return FilePairs(
            [path for pairs in heights for path in pairs.photos],
            [path for pairs in heights for path in pairs.tiles],
            np.concatenate([pairs.place for pairs in heights]),
            heights[0].places,
            self.size,
        )

    def tasks(self) -> list[Task]:
        """Return ``drone_to_satellite_150m``, ``satellite_to_drone_150m`` and so on, each in its full gallery."""
        return [
            task
            for height_m, views in self.views.items()
            for task in both_directions(
                self.layout, {k: v for k, v in views.items() if "_" in k}, self.size, suffix=f"_{height_m}m"
            )
        ]

    def _raw_folders(self) -> tuple[str, list[str], Places]:
        satellite = self.layout.by_place("satellite-view")
        drone = [name for name in self.layout.places(".") if "drone" in name.lower()]
        if not drone:
            raise self.layout.wrong('there is neither Training/ nor a folder with "drone" in its name.')
        return drone[0], self.layout.places(drone[0]), satellite

    def _raw(self, height_m: int, folder: str, names: list[str], satellite: Places) -> dict[str, Places]:
        drone = {name: self.layout.images(f"{folder}/{name}/{height_m}") for name in names}
        require_places(self.layout, drone, satellite, "satellite-view")
        return {
            "drone": {k: v for k, v in drone.items() if k not in TEST_IDS},
            "satellite": {k: v for k, v in satellite.items() if k not in TEST_IDS},
            "query_drone": {k: v for k, v in drone.items() if k in TEST_IDS},
            "query_satellite": {k: v for k, v in satellite.items() if k in TEST_IDS},
            "gallery_drone": drone,
            "gallery_satellite": satellite,
        }

    def _split(self, height_m: int) -> dict[str, Places]:
        views = {view: self.layout.by_place(f"Training/{height_m}/{view}") for view in ("drone", "satellite")}
        for view in ("query_drone", "query_satellite", "gallery_drone", "gallery_satellite"):
            views[view] = self.layout.by_place(f"Testing/{height_m}/{view}")
        require_places(self.layout, views["drone"], views["satellite"], f"Training/{height_m}/satellite")
        for asked, held in (("query_drone", "gallery_satellite"), ("query_satellite", "gallery_drone")):
            require_places(self.layout, views[asked], views[held], f"Testing/{height_m}/{held}")
        return views

    def _check(self, height_m: int) -> None:
        """Refuse other splits (places 1 to 120 against 121 to 200 is a common one), and training at nowhere."""
        views, first = self.views[height_m], next(iter(self.views.values()))
        strangers = sorted(views["drone"].keys() & TEST_IDS) + sorted(views["query_drone"].keys() - TEST_IDS)
        if strangers:
            raise self.layout.wrong(f"place {strangers[0]} is on the wrong side of the official split.")
        if not views["drone"] or not views["query_drone"]:
            raise self.layout.wrong("it needs places of the official training list and of the test list.")
        if views["drone"].keys() != first["drone"].keys():
            raise self.layout.wrong(f"{height_m} m has other training places than the other heights.")
