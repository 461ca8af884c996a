"""What became of a photo, and how it is written: a line of JSON, CSV, GeoJSON or KML."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aerofix.models import Localization, Position, Problem, TrackedLocalization, TrackPosition
from service.routes import geojson
from service.text import visible

FormatName = Literal["json", "geojson", "csv", "kml"]
ENDINGS: dict[str, FormatName] = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".geojson": "geojson",
    ".csv": "csv",
    ".kml": "kml",
}

UNREADABLE = "The file cannot be read"
"""The problem with a photo that never reached the service has this title."""


@dataclass(frozen=True)
class Answered:
    """A photo, or a frame of a video, and what became of it.

    Attributes:
        name: of the photo's file; a frame's ends in ``#t=`` and its seconds, as media fragments do (W3C, 2012).
        answer: the service's, alone or as part of a flight, or why there is none.
        time_s: of a frame, seconds from the start of the video.
    """

    name: str
    answer: Localization | TrackedLocalization | Problem
    time_s: float | None = None

    @property
    def photo(self) -> Localization | None:
        """The answer to the photo alone."""
        return self.answer.photo if isinstance(self.answer, TrackedLocalization) else self._alone

    @property
    def _alone(self) -> Localization | None:
        return self.answer if isinstance(self.answer, Localization) else None

    @property
    def passing(self) -> bool:
        """Whether there is no answer because of something that may be over when the photo is sent again."""
        problem = self.answer
        if not isinstance(problem, Problem):
            return False
        return problem.title == UNREADABLE or problem.status == 429 or problem.status >= 500

    @property
    def position(self) -> Position | TrackPosition | None:
        """Where it was taken; of a flight, where that is."""
        return None if isinstance(self.answer, Problem) else self.answer.position

    @property
    def status(self) -> str:
        """``located``, ``ambiguous`` or ``not_found``, or ``error``; of a flight that is known, ``located``."""
        if self.photo is None:
            return "error"
        tracked = isinstance(self.answer, TrackedLocalization) and self.answer.position is not None
        return "located" if tracked else self.photo.status


def _json(answered: Answered) -> str:
    lead: dict[str, Any] = {"file": answered.name, "status": answered.status}
    if answered.time_s is not None:
        lead["time_s"] = round(answered.time_s, 3)
    answer = answered.answer
    rest = {"problem": answer.model_dump(exclude_none=True)} if isinstance(answer, Problem) else answer.model_dump()
    return visible(json.dumps(lead | {key: rest[key] for key in rest if key not in lead}, ensure_ascii=False))


COLUMNS = (
    "file",
    "time_s",
    "status",
    "lat",
    "lon",
    "accuracy_m",
    "confidence",
    "camera_lat",
    "camera_lon",
    "camera_height_m",
    "camera_heading_deg",
    "camera_pitch_deg",
    "camera_accuracy_m",
    "map",
    "problem",
)


def _values(answered: Answered) -> dict[str, Any]:
    """What fits into a row."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"file": answered.name, "time_s": answered.time_s, "status": answered.status}
    if (position := answered.position) is not None:
        row |= {name: getattr(position, name) for name in ("lat", "lon", "accuracy_m", "confidence")}
    if (photo := answered.photo) is not None:
        if (camera := photo.camera) is not None:
            names = ("lat", "lon", "height_m", "heading_deg", "pitch_deg", "accuracy_m")
            row |= {f"camera_{name}": getattr(camera, name) for name in names}
        row["map"] = photo.candidates[0].map if photo.position is not None else None
    if isinstance(answered.answer, Problem):
        row["problem"] = answered.answer.detail
    return row


def _row(values: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(["" if value is None else visible(str(value)) for value in values])
    return out.getvalue()


def _features(answered: Answered) -> str:
    """The position first, if there is one, else the photo without a place; then candidates, camera and footprint."""
    values = {name: value for name, value in _values(answered).items() if value is not None}
    properties = {"photo": answered.name, "kind": "photo"} | values
    place, photo = answered.position, answered.photo
    point = None if place is None else {"type": "Point", "coordinates": [place.lon, place.lat]}
    features: list[dict[str, Any]] = [{"type": "Feature", "geometry": point, "properties": properties}]
    for each in [] if photo is None else geojson.collection([photo])["features"]:
        features.append(each | {"properties": each["properties"] | {"photo": answered.name}})
    return visible(", ".join(json.dumps(each, ensure_ascii=False) for each in features))


def _placemark(answered: Answered) -> str:
    values = {name: value for name, value in _values(answered).items() if name != "file" and value is not None}
    data = "".join(f'<Data name="{name}"><value>{_xml(value)}</value></Data>' for name, value in values.items())
    place = answered.position
    point = "" if place is None else f"<Point><coordinates>{place.lon},{place.lat}</coordinates></Point>"
    return f"<Placemark><name>{_xml(answered.name)}</name><ExtendedData>{data}</ExtendedData>{point}</Placemark>"


def _xml(value: object) -> str:
    return escape(visible(str(value)))


@dataclass(frozen=True)
class Format:
    """How answers are written: ``head``, a line for each photo with ``between`` them, ``foot``.

    Attributes:
        line: an answer as its line.
        told: the photo's name and its status in such a line.
        start: how every line begins.
    """

    line: Callable[[Answered], str]
    told: Callable[[str], tuple[str, str]]
    start: str = ""
    head: str = ""
    between: str = "\n"
    foot: str = "\n"

    @property
    def after(self) -> str:
        """What comes after a line, whatever follows: nobody who reads lines waits for the next one."""
        return commonprefix([self.between, self.foot])  # noqa: RUF071 - these are no paths

    @property
    def empty(self) -> str:
        """A file without lines."""
        return self.head + (self.foot if self.foot.strip() else "")

    def lines(self, text: str) -> list[str]:
        """Return the lines of a file; what a writer that was killed left of one is not among them.

        Raises:
            ValueError: there is something else in it.
        """
        if self.head.startswith(text):
            return []
        if not text.startswith(self.head):
            raise ValueError(text)
        body = text.removeprefix(self.head)
        *lines, last = body.removesuffix(self.foot).split(self.between)
        if body.endswith(self.foot):
            lines += [last] if last else []
        elif not (last.startswith(self.start) or self.start.startswith(last) or self.foot.strip().startswith(last)):
            raise ValueError(last)
        if not all(line.startswith(self.start) for line in lines):
            raise ValueError(text)
        return lines


def _told_json(line: str) -> tuple[str, str]:
    answer = json.loads(line)
    return answer["file"], answer["status"]


def _told_csv(line: str) -> tuple[str, str]:
    row = dict(zip(COLUMNS, next(csv.reader([line])), strict=False))
    return row["file"], row["status"]


def _told_geojson(line: str) -> tuple[str, str]:
    properties = json.loads(f"[{line}]")[0]["properties"]
    return properties["photo"], properties["status"]


def _told_kml(line: str) -> tuple[str, str]:
    mark = ElementTree.fromstring(line)  # noqa: S314 - a file of our own
    return mark.findtext("name") or "", mark.findtext('.//Data[@name="status"]/value') or ""


FORMATS: dict[FormatName, Format] = {
    "json": Format(_json, _told_json, start='{"file": '),
    "csv": Format(
        lambda answered: _row(list(_values(answered).values())),
        _told_csv,
        head=",".join(COLUMNS) + "\n",
    ),
    "geojson": Format(
        _features,
        _told_geojson,
        start='{"type": "Feature", ',
        head='{"type": "FeatureCollection", "features": [\n',
        between=",\n",
        foot="\n]}\n",
    ),
    "kml": Format(
        _placemark,
        _told_kml,
        start="<Placemark>",
        head='<?xml version="1.0" encoding="UTF-8"?>\n<kml xmlns="http://www.opengis.net/kml/2.2"><Document>\n',
        foot="\n</Document></kml>\n",
    ),
}
