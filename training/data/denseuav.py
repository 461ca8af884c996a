"""DenseUAV (Dai et al., IEEE TIP 2024): points on 14 campuses, flown over at 80, 90 and 100 m.

Neighbouring points are close and look alike. Each has a drone image, an older and a newer tile of every height; any
photo of a point matches any tile of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from training.data.base import Task
from training.data.images import FilePairs, InputSize
from training.data.layout import Layout
from training.data.university1652 import all_pairs, both_directions, require_places
from training.schema import STRICT

GPS_FILE = "Dense_GPS_ALL.txt"
TREE = """
  Dense_GPS_ALL.txt                (lines like train/drone/000001/H80.JPG E119.1 N30.2 80.0)
  train/drone/000001/H80.JPG ..    train/satellite/000001/H80.tif, H80_old.tif ..
  test/query_drone/ID/..           test/gallery_satellite/ID/..
and, for the way back, where a copy has them
  test/query_satellite/ID/..       test/gallery_drone/ID/.."""
#: What is asked and where it is looked for; folders of a direction may be missing, as in trees that circulate.
DIRECTIONS = (("query_drone", "gallery_satellite"), ("query_satellite", "gallery_drone"))


@dataclass(frozen=True, config=STRICT)
class DenseUAVConfig:
    """Where the data set is."""

    root: Path  # the folder that holds train/, test/ and the GPS files
    dataset: Literal["denseuav"] = "denseuav"


class DenseUAV:
    """The data set; every folder is listed on opening.

    Args:
        config: where it is.
        size: of the images that the model wants.

    Raises:
        TrainingError: the folder is not laid out as ``TREE`` shows, or a point has no position.
    """

    def __init__(self, config: DenseUAVConfig, size: InputSize) -> None:
        self.layout, self.size = Layout("DenseUAV", config.root, TREE), size
        views = [view for pair in DIRECTIONS for view in pair if (config.root / "test" / view).is_dir()]
        self.drone, self.satellite = self.layout.by_place("train/drone"), self.layout.by_place("train/satellite")
        self.test = {view: self.layout.by_place(f"test/{view}") for view in views}
        require_places(self.layout, self.drone, self.satellite, "train/satellite")
        for asked, held in DIRECTIONS:
            if asked in self.test and held in self.test:
                require_places(self.layout, self.test[asked], self.test[held], f"test/{held}")
        self.position = self._positions()
        for name in sorted(self.drone.keys() | set().union(*self.test.values())):
            if name not in self.position:
                raise self.layout.wrong(f"{GPS_FILE} has no line for point {name}.")

    def train(self) -> FilePairs:
        """Pair every drone image with every tile of its point, whatever the heights and ages."""
        pairs = all_pairs(self.drone, self.satellite, self.size)
        pairs.position = np.array([self.position[name] for name in sorted(self.drone)], np.float64)
        return pairs

    def tasks(self) -> list[Task]:
        """Return ``drone_to_satellite`` and ``satellite_to_drone``, in full galleries, where both folders are there.

        Raises:
            TrainingError: neither is complete.
        """
        if not any(asked in self.test and held in self.test for asked, held in DIRECTIONS):
            raise self.layout.wrong("test/ has neither query_drone/ with gallery_satellite/, nor the way back.")
        return both_directions(self.layout, self.test, self.size, position=self.position)

    def _positions(self) -> dict[str, tuple[float, float]]:
        """Lat, lon of each point. The two carry their letter, for the files and their description differ in order."""
        found = {}
        for number, line in enumerate(self.layout.lines(GPS_FILE), start=1):
            path, *values = line.split()
            by_letter = {value[0].upper(): value[1:] for value in values if value[:1].isalpha()}
            try:
                found[path.replace("\\", "/").split("/")[-2]] = (float(by_letter["N"]), float(by_letter["E"]))
            except (KeyError, ValueError, IndexError) as error:
                raise self.layout.wrong(
                    f"line {number} of {GPS_FILE} is not a path, E<lon>, N<lat> and a height: {line!r}."
                ) from error
        return found
