"""Everything that can be configured, from the environment (prefix ``AEROFIX_``) or the command line."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of one service process; ``max_batch`` is ``AEROFIX_MAX_BATCH`` in the environment."""

    model_config = SettingsConfigDict(env_prefix="AEROFIX_", extra="ignore", frozen=True)

    model: Path = Field(
        Path(__file__).parents[1] / "models" / "aerofix-lite2.onnx",
        description="ONNX file that keeps the model contract; the default is the one shipped beside the package.",
    )
    gallery: Path = Field(Path("aerofix.gallery"), description="Gallery file; made on first use.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto takes CUDA when it is there."
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads of one inference; 0 lets onnxruntime take one per physical core."
    )
    max_batch: int = Field(
        16, ge=1, le=1024, description="Images; past 16 a CPU gains no throughput, a large GPU gains up to 64 or so."
    )
    max_queue: int = Field(
        128, ge=1, le=100_000, description="Images; 8 batches is about a second on a CPU, as long as a client waits."
    )
    deadline_s: float = Field(
        10.0, gt=0, le=600, description="Seconds from reading an image to its embedding; later, a drone has moved on."
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1024, description="Bytes of a request; several full-size drone photos or a batch of tiles."
    )
    max_image_pixels: int = Field(
        100_000_000, ge=256, description="Pixels of an image; above the 48 to 61 megapixel sensors that drones carry."
    )
    max_images: int = Field(64, ge=1, le=1000, description="Images in a request; bounds what one client can queue.")
    exif_position_radius_m: float = Field(
        500.0, gt=0, le=50_000, description="Metres round the EXIF position to search when it is used as the prior."
    )
    max_tracks: int = Field(1000, ge=1, le=100_000, description="Tracks open at once; one takes about 60 kB of memory.")
    log_level: str = Field(
        "INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line that is written."
    )
