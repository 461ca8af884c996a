"""University-1652 (Zheng et al., ACM Multimedia 2020): buildings seen by a simulated drone and by a satellite.

One satellite image and about 54 drone images of each building. The 701 training and 701 test buildings are of different
universities; the test galleries hold 250 more buildings that nobody asks for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from training.data.base import Task, same_place
from training.data.images import FilePairs, ImageFiles, InputSize
from training.data.layout import Layout
from training.schema import STRICT

TREE = """
  train/drone/0839/image-01.jpeg ..   train/satellite/0839/0839.jpg
  test/query_drone/ID/..              test/gallery_drone/ID/..
  test/query_satellite/ID/ID.jpg      test/gallery_satellite/ID/ID.jpg
(the archive calls it University-Release)"""


@dataclass(frozen=True, config=STRICT)
class University1652Config:
    """Where the data set is."""

    root: Path  # the folder that holds train/ and test/
    dataset: Literal["university1652"] = "university1652"


class University1652:
    """The data set; every folder is listed on opening.

    Args:
        config: where it is.
        size: of the images that the model wants.

    Raises:
        TrainingError: the folder is not laid out as ``TREE`` shows.
    """

    def __init__(self, config: University1652Config, size: InputSize) -> None:
        self.layout, self.size = Layout("University-1652", config.root, TREE), size
        views = ("query_drone", "gallery_drone", "query_satellite", "gallery_satellite")
        self.drone, self.satellite = self.layout.by_place("train/drone"), self.layout.by_place("train/satellite")
        self.test = {view: self.layout.by_place(f"test/{view}") for view in views}
        require_places(self.layout, self.drone, self.satellite, "train/satellite")
        require_places(self.layout, self.test["query_drone"], self.test["gallery_satellite"], "test/gallery_satellite")
        require_places(self.layout, self.test["query_satellite"], self.test["gallery_drone"], "test/gallery_drone")

    def train(self) -> FilePairs:
        """Pair every drone image with the satellite image of its building."""
        return all_pairs(self.drone, self.satellite, self.size)

    def tasks(self) -> list[Task]:
        """Return ``drone_to_satellite`` and ``satellite_to_drone``, each in its full gallery."""
        return both_directions(self.layout, self.test, self.size)


def require_places(layout: Layout, needed: dict[str, list[Path]], found: dict[str, list[Path]], path: str) -> None:
    """Check that every place of one folder is in another.

    Raises:
        TrainingError: one is missing; the first is named.
    """
    missing = sorted(needed.keys() - found.keys())
    if missing:
        raise layout.wrong(f"there is no {path}/{missing[0]}/, but its counterpart exists.")


def all_pairs(photos: dict[str, list[Path]], tiles: dict[str, list[Path]], size: InputSize) -> FilePairs:
    """Pair every photo of a place with every tile of it; places are numbered in the order of their names."""
    rows = [(photo, tile, i) for i, name in enumerate(sorted(photos)) for photo in photos[name] for tile in tiles[name]]
    place = np.array([row[2] for row in rows], np.int64)
    return FilePairs([row[0] for row in rows], [row[1] for row in rows], place, len(photos), size)


def both_directions(
    layout: Layout,
    views: dict[str, dict[str, list[Path]]],
    size: InputSize,
    *,
    suffix: str = "",
    position: dict[str, tuple[float, float]] | None = None,
) -> list[Task]:
    """Return the tasks of a test folder like University-1652's, two where all is there: the same names match.

    Args:
        layout: names of images count from its root.
        views: images by place of ``query_drone``, ``gallery_satellite``, ``query_satellite`` and ``gallery_drone``.
        size: of the images that the model wants.
        suffix: of the tasks' names.
        position: lat, lon in degrees of every place, or None.
    """
    number = {name: i for i, name in enumerate(sorted(set().union(*views.values())))}

    def images(view: str) -> ImageFiles:
        rows = [(path, name) for name in sorted(views[view]) for path in views[view][name]]
        place = np.array([number[name] for _, name in rows], np.int64)
        where = None if position is None else np.array([position[name] for _, name in rows], np.float64)
        return ImageFiles([path for path, _ in rows], place, size, layout.root, position=where)

    tasks = []
    for asked, held in (("drone", "satellite"), ("satellite", "drone")):
        if f"query_{asked}" not in views or f"gallery_{held}" not in views:
            continue
        queries, gallery = images(f"query_{asked}"), images(f"gallery_{held}")
        tasks.append(Task(f"{asked}_to_{held}{suffix}", queries, gallery, same_place(queries, gallery)))
    return tasks
