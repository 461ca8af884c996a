"""What the service answers about what is stored: pictures, maps, imports and copies, as ``/docs`` shows it."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.http.problems import Problem
from service.routes.schemas import Bounds


class TileResult(BaseModel):
    """What became of one tile."""

    id: str | None = Field(description="null when the tile failed before it had one")
    status: Literal["added", "updated", "failed"]
    problem: Problem | None = Field(default=None, description="why it failed")


class TilesAdded(BaseModel):
    """What became of the tiles of a request; those added or updated are on disk."""

    added: int
    updated: int
    failed: int
    tiles: list[TileResult]
    count: int = Field(description="tiles in the gallery now")
    generation: int


class StoredTile(BaseModel):
    """A tile of the gallery."""

    id: str = Field(examples=["fengyuan/r03c07"])
    lat: float = Field(description="of the tile's centre", examples=[24.26])
    lon: float = Field(description="of the tile's centre", examples=[120.7186])
    bounds: Bounds = Field(description="west, south, east, north", examples=[(120.718, 24.2595, 120.7192, 24.2605)])
    corners: list[tuple[float, float]] = Field(description="four (lat, lon), clockwise from the image's top-left")
    gsd_m: float = Field(description="ground metres per pixel of the image that was added", examples=[0.33])
    properties: dict[str, Any] = Field(description="what the user gave with the tile")


class TilePage(BaseModel):
    """Some of the tiles that were asked for."""

    tiles: list[StoredTile]
    cursor: str | None = Field(description="give it back for the next page; null at the end", examples=["1000"])


class TilesDeleted(BaseModel):
    """What a deletion left."""

    deleted: int
    count: int = Field(description="tiles in the gallery now")
    generation: int


class ImportTrouble(BaseModel):
    """A window of an import that failed."""

    item: str = Field(description="the window, or what of the source")
    problem: Problem


class ImportState(BaseModel):
    """How far an import is."""

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    name: str = Field(description="of the file that was sent")
    map: str = Field(description="name of the map that it makes or extends")
    created_at: str = Field(description="UTC, ISO 8601")
    done: int = Field(description="pieces of work that are finished")
    total: int = Field(description="pieces of work: tiles of pixels to store, and windows to embed")
    added: int = Field(description="windows that photos can be found in")
    updated: int = Field(description="windows that were there before")
    failed: int = Field(description="windows that could not be embedded")
    skipped: int = Field(description="windows that were left out: mostly empty, or of a single colour")
    warnings: list[str] = Field(description="what is worth knowing of this map, in sentences")
    eta_s: float | None = Field(description="seconds until its end; null when they cannot be told")
    problem: Problem | None = Field(
        default=None, description="why it failed or, while it is running, what it waits for"
    )
    problems: list[ImportTrouble] = Field(description="the first windows that failed")


class ImportList(BaseModel):
    """The last imports, newest first."""

    imports: list[ImportState]


class MapLevel(BaseModel):
    """A scale at which a map is searched."""

    zoom: int = Field(description="of the XYZ scheme")
    window_m: float = Field(description="side of the squares that are compared, metres", examples=[122.1])


class ElevationState(BaseModel):
    """How high the ground of a map is."""

    origin: str = Field(description="name of the file that it came from", examples=["dem.tif"])
    covers: float = Field(description="share of the map whose ground has a height", examples=[1.0])
    step_m: float = Field(description="metres between its heights", examples=[5.0])
    low_m: float = Field(description="lowest height above sea level", examples=[412.5])
    high_m: float = Field(description="highest height above sea level", examples=[460.1])


class ElevationAdded(ElevationState):
    """An elevation that is stored."""

    map: str
    warnings: list[str] = Field(description="what is worth knowing of it, in sentences")
    generation: int


class ElevationDeleted(BaseModel):
    """What the deletion of an elevation left."""

    map: str
    deleted: bool = Field(description="whether there was one")
    generation: int


class MapState(BaseModel):
    """A map of the gallery."""

    name: str = Field(examples=["town"])
    origin: str = Field(description="name of the file that it came from")
    bounds: Bounds = Field(description="west, south, east, north", examples=[(2.995, 54.694, 3.005, 54.7)])
    gsd_m: float = Field(description="ground metres a pixel of the file", examples=[0.3])
    date: str | None = Field(
        description="when its pictures were taken, ISO 8601, as the import or the file says; null when neither does",
        examples=["2024-05-17"],
    )
    windows: int = Field(description="windows that photos are compared with")
    levels: list[MapLevel] = Field(description="scales of them, finest first")
    minzoom: int = Field(description="coarsest zoom of its tiles")
    maxzoom: int = Field(description="finest zoom of its tiles")
    bytes: int = Field(description="bytes that it takes in the gallery")
    elevation: ElevationState | None = Field(
        description="how high its ground is; null when nobody told, and it counts as level"
    )
    created_at: str = Field(description="UTC, ISO 8601")


class MapList(BaseModel):
    """All maps, in the order in which they were added."""

    maps: list[MapState]


class MapDeleted(BaseModel):
    """What the deletion of a map left."""

    map: str
    deleted: int = Field(description="windows that it had")
    count: int = Field(description="windows and tiles in the gallery now")
    generation: int


class SnapshotState(BaseModel):
    """A copy of the gallery's file."""

    name: str = Field(examples=["20260418T093000123456Z-g8.gallery"])
    bytes: int
    created_at: str = Field(description="UTC, ISO 8601")


class SnapshotList(BaseModel):
    """All copies, newest first."""

    snapshots: list[SnapshotState]


class GalleryState(BaseModel):
    """The gallery as a whole."""

    count: int = Field(description="windows of maps, and single pictures")
    maps: int = Field(description="number of maps")
    bounds: Bounds | None = Field(description="west, south, east, north of all of it; null when empty")
    generation: int
    identity: str = Field(description="identity stamp of the model that made its embeddings")
    tile_side_m: float | None = Field(description="median side of the tiles in metres; null when empty")
    index: dict[str, Any] = Field(description="kind and state of the vector index")
