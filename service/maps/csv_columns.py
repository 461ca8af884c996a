"""Which column of a table means what, whoever named it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import InvalidFootprint, InvalidParameter, SourceUnreadable

COLUMNS_HELP = (
    "Give a column Filename and the corners: Top_left_lat, Top_left_lon, Bottom_right_lat, Bottom_right_lon (and the "
    "other two for a turned image), or west, south, east, north, or lat, lon, gsd_m."
)

FILE = {"filename", "file", "image", "imagename", "imagefile", "img", "name", "tile", "tilename", "path", "mapname"}
AXES = {"lat": ("lat", "latitude"), "lon": ("lon", "long", "lng", "longitude")}
CORNERS = {
    "top_left": ("topleft", "upperleft", "lefttop", "leftupper", "northwest", "tl", "ul", "lt", "nw"),
    "top_right": ("topright", "upperright", "righttop", "rightupper", "northeast", "tr", "ur", "rt", "ne"),
    "bottom_right": ("bottomright", "lowerright", "rightbottom", "rightlower", "southeast", "br", "lr", "rb", "se"),
    "bottom_left": ("bottomleft", "lowerleft", "leftbottom", "leftlower", "southwest", "bl", "ll", "lb", "sw"),
}
EDGES = {
    "west": ("west", "w", "minlon", "lonmin", "minlongitude", "xmin", "left"),
    "south": ("south", "s", "minlat", "latmin", "minlatitude", "ymin", "bottom"),
    "east": ("east", "e", "maxlon", "lonmax", "maxlongitude", "xmax", "right"),
    "north": ("north", "n", "maxlat", "latmax", "maxlatitude", "ymax", "top"),
}
CENTRE = {"lat": (*AXES["lat"], "centerlat", "centrelat"), "lon": (*AXES["lon"], "centerlon", "centrelon")}
GSD = ("gsdm", "gsd")


def _spellings() -> dict[str, str]:
    """From a column's name, in lower case and without anything but letters, to what it means."""
    meanings = dict.fromkeys(FILE, "file") | {"id": "id", "tileid": "id"} | dict.fromkeys(GSD, "gsd_m")
    meanings |= {axis: axis for axis in ("z", "x", "y")} | {"zoom": "z"}
    for names in (EDGES, CENTRE):
        meanings |= {spelling: meaning for meaning, spellings in names.items() for spelling in spellings}
    for corner, corner_spellings in CORNERS.items():
        for axis, axis_spellings in AXES.items():
            for one in corner_spellings:
                for other in axis_spellings:
                    # "Top_left_lat", "lat_tl", and "LT_lat_map" as in UAV-VisLoc
                    meanings |= dict.fromkeys((one + other, other + one, one + other + "map"), f"{corner}_{axis}")
    return meanings


SPELLINGS = _spellings()
FORMS = {
    "corners": [f"{corner}_{axis}" for corner in CORNERS for axis in AXES],
    "diagonal": [f"{corner}_{axis}" for corner in ("top_left", "bottom_right") for axis in AXES],
    "bounds": ["west", "south", "east", "north"],
    "zxy": ["z", "x", "y"],
    "centre": ["lat", "lon", "gsd_m"],
}
"""Columns that together are a footprint; the first form that is complete counts."""


@dataclass(frozen=True)
class Columns:
    """Where in a row what is.

    Attributes:
        places: index of each column with a meaning.
        form: key of ``FORMS``.
        others: index of each column that becomes a property.
    """

    places: Mapping[str, int]
    form: str
    others: Mapping[str, int]

    def file_of(self, row: Sequence[str]) -> str:
        """Return the image's file name."""
        if not (name := self._cell(row, "file")):
            raise InvalidParameter("this row names no image.")
        return name

    def id_of(self, row: Sequence[str]) -> str:
        """Return the tile's id, empty if the table gives none."""
        return self._cell(row, "id") if "id" in self.places else ""

    def entry_of(self, row: Sequence[str]) -> dict[str, Any]:
        """Return footprint and properties as ``Footprint.parse`` reads them.

        Raises:
            InvalidFootprint: a cell is not a number.
        """
        values = []
        for column in FORMS[self.form]:
            try:
                values.append(float(self._cell(row, column)))
            except ValueError as error:
                raise InvalidFootprint(f"{column} is {self._cell(row, column)!r}; give degrees as a number.") from error
        entry: dict[str, Any]
        if self.form == "corners":
            entry = {"corners": [values[i : i + 2] for i in range(0, 8, 2)]}
        elif self.form == "diagonal":
            north, west, south, east = values
            entry = {"bounds": [west, south, east, north]}
        elif self.form == "bounds":
            entry = {"bounds": values}
        else:
            entry = dict(zip(FORMS[self.form], values, strict=True))
        if properties := {name: row[i] for name, i in self.others.items() if i < len(row) and row[i] != ""}:
            entry["properties"] = properties
        return entry

    def _cell(self, row: Sequence[str], column: str) -> str:
        place = self.places[column]
        return row[place].strip() if place < len(row) else ""


def read_columns(header: Sequence[str], name: str) -> Columns:
    """Understand the header of a table.

    Args:
        header: names of the columns.
        name: of the table, for errors.

    Raises:
        SourceUnreadable: there is no column of file names or not enough for a footprint, or two mean the same.
    """
    places: dict[str, int] = {}
    others: dict[str, int] = {}
    for i, column in enumerate(header):
        meaning = SPELLINGS.get(re.sub(r"[^a-z]", "", column.lower()))
        if meaning is None:
            others[column.strip() or f"column {i + 1}"] = i
        elif meaning in places:
            raise SourceUnreadable(f"{name}: {header[places[meaning]]} and {column} mean the same; remove one.")
        else:
            places[meaning] = i
    form = next((form for form, wanted in FORMS.items() if all(column in places for column in wanted)), None)
    if form is None or "file" not in places:
        raise SourceUnreadable(f"{name} has the columns {', '.join(header)!r:.300}. {COLUMNS_HELP}")
    return Columns(places, form, others)
