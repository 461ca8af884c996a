"""What the service answers, as pydantic models: the very classes that it makes its answers of."""

from service.http.problems import Problem
from service.routes.ground_schemas import (
    GalleryState,
    ImportList,
    ImportState,
    MapDeleted,
    MapList,
    MapState,
    SnapshotState,
    StoredTile,
    TilePage,
    TileResult,
    TilesAdded,
    TilesDeleted,
)
from service.routes.schemas import (
    Camera,
    Candidate,
    Localization,
    Model,
    Position,
    TrackedLocalization,
    TrackList,
    TrackState,
)

__all__ = [
    "Camera",
    "Candidate",
    "GalleryState",
    "ImportList",
    "ImportState",
    "Localization",
    "MapDeleted",
    "MapList",
    "MapState",
    "Model",
    "Position",
    "Problem",
    "SnapshotState",
    "StoredTile",
    "TilePage",
    "TileResult",
    "TilesAdded",
    "TilesDeleted",
    "TrackList",
    "TrackState",
    "TrackedLocalization",
]
