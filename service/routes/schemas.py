"""The JSON that the service answers, as ``/docs`` shows it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.http.problems import Problem

Source = Literal["form", "exif", "track"]
Bounds = tuple[float, float, float, float]
# pydantic before 2.10 warns of every field that starts with "model_"
_MODEL_NAMES = ConfigDict(protected_namespaces=())


class Position(BaseModel):
    """Where the photo was taken."""

    lat: float = Field(description="degrees north, WGS84", examples=[24.26012])
    lon: float = Field(description="degrees east, WGS84", examples=[120.71854])
    accuracy_m: float = Field(description="radius in metres that holds the truth with 68 % probability", examples=[9.4])
    confidence: float = Field(description="probability that the place is right", examples=[0.97])
    sigma_m: float = Field(
        description="standard deviation in metres along each axis, if the place is right", examples=[5.1]
    )
    heading_deg: float | None = Field(
        default=None, description="compass direction of the photo's top edge; null when not estimated"
    )
    reference: str = Field(default="ground point at image centre, WGS84", description="the point that lat and lon name")


class CandidateTile(BaseModel):
    """The tile of a candidate."""

    lat: float = Field(description="of the tile's centre", examples=[24.26])
    lon: float = Field(description="of the tile's centre", examples=[120.7186])
    bounds: Bounds = Field(description="west, south, east, north", examples=[(120.718, 24.2595, 120.7192, 24.2605)])
    corners: list[tuple[float, float]] = Field(description="four (lat, lon), clockwise from the image's top-left")
    gsd_m: float = Field(description="ground metres per pixel", examples=[0.33])


class Candidate(BaseModel):
    """A tile that may show the photo's place."""

    rank: int = Field(description="1 is the best")
    tile_id: str = Field(description="of a window MAP/zoom/row/column", examples=["fengyuan/18/3214/7715"])
    map: str | None = Field(
        default=None, description="the map that it is of; null for a single picture", examples=["fengyuan"]
    )
    score: float = Field(description="cosine similarity", examples=[0.81])
    inliers: int | None = Field(
        default=None,
        description="positions of the photo that were found in the tile and agree on where it lies; null when the "
        "model has no local descriptors, or the tile was not among the first, which are matched",
        examples=[143],
    )
    support: float | None = Field(
        default=None,
        description="inliers by how far they spread over photo and tile; candidates are ordered by it. Null when it "
        "was not matched",
        examples=[131.5],
    )
    confidence: float = Field(description="probability that this candidate's place is right", examples=[0.97])
    lat: float = Field(description="the refined position for rank 1 of a found photo, else the tile's centre")
    lon: float = Field(description="see lat")
    tile: CandidateTile


class Camera(BaseModel):
    """Where the aircraft's camera was."""

    lat: float = Field(description="degrees north, WGS84", examples=[24.25934])
    lon: float = Field(description="degrees east, WGS84", examples=[120.71811])
    height_m: float | None = Field(
        description="above the ground at the photo's centre; null when no field of view tells it", examples=[118.0]
    )
    heading_deg: float = Field(
        description="where the camera looks; steeply down, where the photo's top edge faces", examples=[151.8]
    )
    pitch_deg: float = Field(description="-90 looks straight down", examples=[-61.5])
    roll_deg: float = Field(description="clockwise, seen from behind", examples=[0.4])
    hfov_deg: float | None = Field(description="field of view that fits the map best", examples=[71.9])
    accuracy_m: float = Field(
        description="radius in metres that holds the camera's place with 68 % probability", examples=[11.0]
    )


class Detail(BaseModel):
    """A detail that was found in the photo and on the map, and agrees with how the photo lies."""

    x: float = Field(description="pixels from the left of the upright photo", examples=[1912.4])
    y: float = Field(description="pixels from its top", examples=[803.0])
    lat: float = Field(description="degrees north, WGS84", examples=[24.26034])
    lon: float = Field(description="degrees east, WGS84", examples=[120.71871])


class Query(BaseModel):
    """What was understood of the photo."""

    width: int = Field(description="pixels, upright", examples=[4000])
    height: int = Field(description="pixels, upright", examples=[2250])
    used: dict[str, Source] = Field(description="hints that counted, and where they come from")
    values: dict[str, float] = Field(
        default={}, description="the hints that counted", examples=[{"heading_deg": 151.8}]
    )
    readings: dict[str, str] = Field(
        default={},
        description="for hints from EXIF or XMP, which reading it is",
        examples=[{"heading_deg": "gimbal yaw"}],
    )
    unused: dict[str, str] = Field(default={}, description="hints that cannot count, and what they lack")
    disputed: dict[str, str] = Field(
        default={}, description="hints that the map contradicts, and what it says; they did not decide the answer"
    )
    looks: int = Field(default=1, description="how many looks the photo was given, see `effort`")
    ground_width_m: float | None = Field(
        default=None,
        description="ground that the photo's width covers at its centre, from altitude, pitch and field of view",
        examples=[179.5],
    )
    view_side_m: float | None = Field(default=None, description="side of the square of ground that was compared")
    tile_side_m: float | None = Field(
        default=None, description="of the gallery's tile sizes the one closest to the photo's"
    )


class Timing(BaseModel):
    """Milliseconds of each step."""

    decode: float = Field(description="reading, turning and cropping the photo")
    queue: float = Field(description="waiting for the encoder")
    encode: float = Field(description="the batch that held the photo")
    search: float
    rerank: float = Field(description="matching and ordering the candidates")
    refine: float = Field(description="judging the candidates, and the position between them")
    total: float


class Localization(BaseModel):
    """The answer to one photo."""

    model_config = _MODEL_NAMES

    status: Literal["located", "ambiguous", "not_found"]
    position: Position | None = Field(description="null when not_found")
    candidates: list[Candidate]
    camera: Camera | None = Field(default=None, description="null when the photo does not give it, see camera_missing")
    camera_missing: str | None = Field(
        default=None, description="what is not known of the camera, and why; null when all is"
    )
    footprint: list[tuple[float, float] | None] | None = Field(
        default=None,
        description="(lat, lon) of the photo's corners on the ground, clockwise from its top left; null for one above "
        "the horizon, and null as a whole when the photo was not laid on the ground",
    )
    matches: list[Detail] | None = Field(
        default=None, description="when asked for: the details that lay the photo on the ground; null when none do"
    )
    query: Query
    searched_tiles: int = Field(description="tiles that the prior leaves, or all")
    model_id: str
    gallery_generation: int = Field(description="grows with every change of the gallery")
    request_id: str
    timing_ms: Timing


class TrackPosition(BaseModel):
    """Where the track is."""

    lat: float = Field(description="degrees north, WGS84", examples=[24.26012])
    lon: float = Field(description="degrees east, WGS84", examples=[120.71854])
    accuracy_m: float = Field(description="radius in metres that holds the truth with 68 % probability", examples=[6.2])
    confidence: float = Field(description="probability that the track is right", examples=[0.998])
    reference: str = Field(
        default="ground point at image centre, WGS84",
        description="the point that lat and lon name: that, or `camera, WGS84`",
        examples=["camera, WGS84"],
    )
    height_m: float | None = Field(
        default=None, description="of the camera above the ground that the last fused photo showed; null when unknown"
    )


class FlightLens(BaseModel):
    """What the photos of a flight tell of their lens."""

    hfov_deg: float = Field(description="horizontal field of view", examples=[67.4])
    sigma_deg: float = Field(description="its standard deviation", examples=[1.5])
    stated_hfov_deg: float = Field(description="what callers or metadata state", examples=[73.7])
    text: str = Field(examples=["the field of view is 67.4°, not 73.7°"])


class Velocity(BaseModel):
    """How the position moves."""

    east_m_s: float = Field(examples=[7.1])
    north_m_s: float = Field(examples=[-7.1])
    speed_m_s: float = Field(examples=[10.0])
    course_deg: float = Field(description="compass direction, 0 = north; means nothing at speed 0", examples=[135.0])


class Covariance(BaseModel):
    """How sure the position is."""

    axes: tuple[Literal["east"], Literal["north"]] = ("east", "north")
    position_m2: list[list[float]] = Field(
        description="2 by 2, square metres, rows and columns as in axes", examples=[[[17.2, 0.4], [0.4, 17.9]]]
    )


class TrackEstimate(BaseModel):
    """What is known of a flight at its last photo."""

    timestamp_s: float | None = Field(description="of the last photo, seconds; null before the first")
    confidence: float = Field(description="probability that the track is right; 0 before the first fix")
    position: TrackPosition | None = Field(
        default=None,
        description="of the camera once its place is known, else the point on the ground, see `reference`; null while "
        "confidence is not above 0.68",
    )
    ground: TrackPosition | None = Field(
        default=None, description="the ground point at the image centre, whatever `position` is of"
    )
    lens: FlightLens | None = Field(
        default=None, description="what the flight tells of the field of view; null while it does not, see README"
    )
    velocity: Velocity | None = Field(default=None, description="null before two photos have told it")
    covariance: Covariance | None = Field(default=None, description="null before the first fix")


class TrackedLocalization(TrackEstimate):
    """The answer to the next photo of a flight."""

    track_id: str
    use: Literal["fused", "gated", "lost"] = Field(
        description="what became of the photo: a place of it was fused, none of them fits the track, or it shows none"
    )
    fused_tile_id: str | None = Field(description="tile of the place that was fused, not always the photo's best")
    photo: Localization = Field(description="the answer to the photo alone")


class TrackOptions(BaseModel):
    """What a track was opened with."""

    max_speed_m_s: float
    acceleration_m_s2: float
    expiry_s: float


class PhotoUses(BaseModel):
    """How many photos of a track became what."""

    fused: int
    gated: int
    lost: int


class TrackState(TrackEstimate):
    """A track."""

    id: str
    expires_in_s: float = Field(description="seconds until it is forgotten if no photo comes")
    options: TrackOptions
    uses: PhotoUses


class TrackEntry(BaseModel):
    """A flight after one of its photos."""

    timestamp_s: float
    use: Literal["fused", "gated", "lost"]
    status: Literal["located", "ambiguous", "not_found"] = Field(description="of the photo alone")
    confidence: float
    position: TrackPosition | None
    velocity: Velocity | None
    hindsight: bool = Field(description="whether the position is known only since later photos told which way it came")


class TrackHistory(BaseModel):
    """A flight at each of its photos, in their order."""

    track_id: str
    entries: list[TrackEntry] = Field(description="the last 1,000")
    lens: FlightLens | None


class TrackList(BaseModel):
    """Open tracks."""

    tracks: list[TrackState]


class Failure(BaseModel):
    """A photo of several that could not be answered."""

    problem: Problem


class Localizations(BaseModel):
    """The answer to several photos, in their order."""

    results: list[Localization | Failure]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Everything that an answer needs works."""

    status: Literal["ready"] = "ready"
    checks: dict[str, bool]
    provider: str = Field(description="onnxruntime execution provider in use", examples=["CPUExecutionProvider"])
    index_device: str = Field(description="where tiles are searched now", examples=["cpu", "cuda:0"])


class Model(BaseModel):
    """The loaded model's contract."""

    model_config = _MODEL_NAMES

    model_id: str
    method: str
    backbone: str
    identity: str
    image_size: int
    resize: str
    embedding_dim: int
    local_shape: tuple[int, int, int] | None
    gsd_range_m: tuple[float, float]
    license: str
    provider: str = Field(description="onnxruntime execution provider in use", examples=["CPUExecutionProvider"])
    index_device: str = Field(description="where tiles are searched now", examples=["cpu", "cuda:0"])
    calibration: dict[str, Any]
    training_config: dict[str, Any]
