"""Photos of real flights, answered by the service itself: simulated ones are never all that cameras do."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError
from training.export.calibrate import Floats
from training.export.rehearsal import CANDIDATES, Rehearsal, run_aerofix, tabulate

COLUMNS = ("file", "lat", "lon")


@dataclass(frozen=True)
class Flown:
    """Photos, and a gallery that shows the places of some.

    Attributes:
        photos: files.
        places: ``[P, 2]`` lat, lon of the ground at each photo's centre; NaN for one that no map shows.
        judged: bool ``[P]``, the second half of each folder: neighbours overlap, so halves are not drawn by lot.
        gallery: with maps embedded by the model.
    """

    photos: list[Path]
    places: Floats
    judged: NDArray[np.bool_]
    gallery: Path

    def rehearse(self, model: Path) -> Rehearsal:
        """Let the service answer with a model, without hints; see ``rehearsal.Stage.rehearse``."""
        wanted = ("--json", "--no-exif", "--top-k", CANDIDATES)
        lines = run_aerofix("localize", *self.photos, *wanted, "--gallery", self.gallery, "--model", model)
        return tabulate([json.loads(line) for line in lines.splitlines()], self.places, self.judged, real=True)


def read_flown(table: Path, gallery: Path) -> Flown:
    """Read a table of photos.

    Args:
        table: CSV with the columns ``file`` (relative to the table), ``lat`` and ``lon``; these are empty for a photo
            that no map of the gallery shows.
        gallery: file of ``aerofix gallery add``.

    Raises:
        TrainingError: a column, a number or a file is missing.
    """
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"The table of photos cannot be read: {error}.") from error
    if not rows or any(row.get(name) is None for row in rows for name in COLUMNS):
        raise TrainingError(f"{table} must have the columns {', '.join(COLUMNS)}, and a row for each photo.")
    photos = [table.parent / row["file"] for row in rows]
    missing = next((path for path in [*photos, gallery] if not path.is_file()), None)
    if missing is not None:
        raise TrainingError(f"There is no file {missing}.")
    try:
        places = np.array([[float(row[name] or "nan") for name in ("lat", "lon")] for row in rows])
    except ValueError as error:
        raise TrainingError(f"{table}: lat and lon must be degrees, or empty: {error}.") from error
    judged = list[bool]()
    for _, same in groupby(photos, key=lambda path: path.parent):
        count = len(list(same))
        judged += [i >= (count + 1) // 2 for i in range(count)]
    return Flown(photos, places, np.array(judged), gallery)
