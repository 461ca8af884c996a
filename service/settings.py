"""Everything that can be configured, from the environment (prefix ``AEROFIX_``) or the command line."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.http.security import digests

MODEL_NAME = "aerofix-lite2.onnx"

# A list in the environment is written with commas or spaces.
Words = Annotated[tuple[str, ...], NoDecode]


def shipped_model() -> Path:
    """Return the model file that comes with aerofix: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "models" / MODEL_NAME
    return installed if installed.exists() else package.parent / "models" / MODEL_NAME


class Settings(BaseSettings):
    """Settings of one service process; ``max_batch`` is ``AEROFIX_MAX_BATCH`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="AEROFIX_", extra="forbid", frozen=True)

    model: Path = Field(
        default_factory=shipped_model,
        description="ONNX file that keeps the model contract; the default is the one that comes with aerofix.",
    )
    gallery: Path = Field(Path("aerofix.gallery"), description="Gallery file; made on first use.")

    # past one machine
    milvus_uri: str | None = Field(
        None,
        description="Address of Milvus, such as http://milvus:19530: vectors are searched there, by several services, "
        "and the gallery file is only looked at. Unset: the vectors of the file are searched in this process.",
    )
    milvus_token: SecretStr = Field(
        SecretStr(""), description="What Milvus asks for: user:password, or a key; empty where it asks for nothing."
    )
    milvus_collection: str = Field(
        "aerofix",
        pattern=r"^[A-Za-z_]\w{0,99}$",
        description="Name of the collection; a part that stands for the model is added.",
    )

    # devices
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto takes CUDA when it is there."
    )
    index_device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where tiles are searched; auto takes CUDA when FAISS has it and the model may use it."
    )
    cuda_device: int = Field(
        0, ge=0, le=63, description="Number of the GPU, as nvidia-smi lists them unless CUDA_DEVICE_ORDER is set."
    )
    cuda_memory_bytes: int = Field(
        0,
        ge=0,
        description="Bytes of GPU memory that the model's arenas may take; a model that looks at turned copies, as the "
        "default one does, has two, which share it evenly. 0 leaves them the whole GPU.",
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads of one inference; 0 lets onnxruntime take one per physical core."
    )

    # load
    max_batch: int = Field(
        16,
        ge=1,
        le=1024,
        description="Images at once; a CPU takes two for each core, a large GPU gains up to 64 or so.",
    )
    max_queue: int = Field(
        128, ge=1, le=100_000, description="Images; 8 batches is about a second on a CPU, as long as a client waits."
    )
    max_in_flight: int = Field(
        64,
        ge=1,
        le=100_000,
        description="Requests that are worked on at a time, at the most; one more is told to come back before its body "
        "is read. Four batches fill the next one while photos are decoded; fewer come in while deadlines are missed.",
    )
    max_arriving: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Requests whose body is on the way; four for each that is worked on. A connection and a temporary "
        "file each, which stays below the usual 1024 open files.",
    )
    max_uploads: int = Field(
        8, ge=1, le=1000, description="Imports whose file is on the way; they are read one after the other anyway."
    )
    deadline_s: float = Field(
        10.0, gt=0, le=600, description="Seconds from reading a request to its answer; later, a drone has moved on."
    )
    body_timeout_s: float = Field(
        60.0, gt=0, le=3600, description="Seconds for a body to arrive; a 7 MB photo over a link of 1 Mbit/s."
    )
    min_body_bytes_s: float = Field(
        8000.0,
        gt=0,
        le=1e9,
        description="Bytes a second of a body, on average after 10 s; a sixteenth of 1 Mbit/s. An import's upload may "
        "take as long as it keeps this pace.",
    )
    min_answer_bytes_s: float = Field(
        8000.0,
        gt=0,
        le=1e9,
        description="Bytes a second of an answer that its receiver takes, on average after 10 s; else it is cut off.",
    )
    max_connections: int = Field(
        512,
        ge=1,
        le=100_000,
        description="Connections open at once; for one more, the one that has been idle longest is closed. With a file "
        "for each body on its way that stays below the usual 1024 open files.",
    )
    max_header_bytes: int = Field(
        65_536,
        ge=1024,
        le=2**20,
        description="Bytes of a request's URL and headers, and of its trailers; 8 times usual.",
    )
    max_headers: int = Field(
        100, ge=10, le=10_000, description="Headers of a request; browsers behind two proxies send 30."
    )
    max_url_bytes: int = Field(
        8192, ge=256, le=65_536, description="Bytes of a request's URL, which RFC 9110 asks servers to take."
    )
    header_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="Seconds for a request's headers to arrive; they fit into a few packets."
    )
    drain_s: float = Field(
        25.0, ge=0, le=3600, description="Seconds to finish accepted requests after SIGTERM; Kubernetes kills after 30."
    )
    restart_after_s: float = Field(
        30.0,
        ge=0,
        le=3600,
        description="Seconds that the encoder may be dead, stuck or wrong before /livez fails and the process is "
        "restarted; /readyz fails at once. Long enough to see it in the log and the metrics.",
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1024, description="Bytes of a request; several full-size drone photos or a batch of tiles."
    )
    max_body_bytes_in_all: int = Field(
        2 * 2**30,
        ge=1024,
        description="Bytes of all requests that arrive or are worked on, imports apart; what they take of memory and "
        "temporary files. 256 photos of 7 MB.",
    )
    max_import_bytes: int = Field(
        64 * 2**30, ge=1024, description="Bytes of an import's upload; the orthophoto of a large city."
    )
    imports: Path | None = Field(
        None, description="Folder of uploads until they are imported; default: the gallery's name with -imports."
    )
    snapshots: Path | None = Field(
        None, description="Folder of snapshots; default: the gallery's name with -snapshots."
    )
    max_snapshots: int = Field(
        10, ge=1, le=10_000, description="Snapshots that are kept, each as large as the gallery; one more is refused."
    )
    max_image_pixels: int = Field(
        100_000_000,
        ge=256,
        description="Pixels of an image; above the 48 to 61 megapixel sensors that drones carry. A WebP may have half.",
    )
    max_images: int = Field(64, ge=1, le=1000, description="Images in a request; bounds what one client can queue.")
    exif_position_radius_m: float = Field(
        500.0, gt=0, le=50_000, description="Metres round the EXIF position to search when it is used as the prior."
    )
    max_tracks: int = Field(1000, ge=1, le=100_000, description="Tracks open at once; one takes about 60 kB of memory.")
    max_tracks_per_key: int = Field(
        100, ge=1, le=100_000, description="Tracks that one key may have open; a fleet for each, and ten such keys."
    )
    max_track_expiry_s: float = Field(
        3600.0,
        ge=1,
        le=86_400,
        description="Seconds that a track may stay without a photo, at the most; a battery lasts less, and changing it "
        "takes minutes.",
    )

    # who may ask
    host: str = Field("127.0.0.1", description="Address to listen on; any but a loopback address needs keys.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    read_keys: Words = Field(
        (), description="Keys that may localize and look; each the key itself or sha256: and its hash in hexadecimal."
    )
    write_keys: Words = Field((), description="Keys that may also change the gallery; written like the others.")
    keys_file: Path | None = Field(
        None, description="File with a line `read KEY` or `write KEY` for each, for what mounts secrets as files."
    )
    insecure: bool = Field(False, description="Listen on other addresses without keys; whoever gets there may write.")
    allowed_hosts: Words = Field(
        (), description="Names that a request may address; empty takes any, or on a loopback address its names."
    )
    root_path: str = Field(
        "",
        pattern=r"^((/[\w.~-]+)+)?$",
        description="Path below which a proxy shows the service, such as /aerofix; the proxy may take it off or not.",
    )
    cors_origins: Words = Field(
        (), description="Origins whose web pages may call, such as https://map.example; empty allows none."
    )

    # watching
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line that is written."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Lines of the log: JSON objects, text to read, or auto: text on a terminal, JSON elsewhere."
    )
    otlp_endpoint: str | None = Field(
        None, description="URL of an OpenTelemetry collector, such as http://127.0.0.1:4318/v1/traces; unset: none."
    )

    @field_validator("read_keys", "write_keys", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("read_keys", "write_keys")
    @classmethod
    def _hash(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return digests(value)  # from here on no key is in memory, in a log or in an error

    @property
    def search_device(self) -> str:
        """Where to search, with the GPU's number; without a word on it, no GPU where the model may not use one."""
        kind = "cpu" if self.index_device == "auto" and self.device == "cpu" else self.index_device
        return kind if kind == "cpu" else f"{kind}:{self.cuda_device}"

    def beside_gallery(self, what: str) -> Path:
        """Return the default folder for things of the gallery: ``aerofix.gallery-imports`` and so on."""
        return self.gallery.with_name(f"{self.gallery.name}-{what}")
