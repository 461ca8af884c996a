"""The network of both views: a timm backbone, pooling, a projection, unit length; optionally dense descriptors."""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from training.batch import Features, full_precision
from training.config import ModelConfig
from training.errors import TrainingError
from training.models.backbone import make_backbone
from training.models.heads import VLAD, AttentionGeM, DenseHead, GeM
from training.models.xfeat import DESCRIPTOR_DIM, STRIDE, XFeat

#: Strides of the stages that convolutional backbones share.
STRIDES = (4, 8, 16, 32)
#: Of these, the stage whose positions ``gem_vlad`` aggregates: 16 px know a roof from a tree, and not yet the whole.
SPOTS = STRIDES.index(16)


def as_input(images: Tensor) -> Tensor:
    """Turn pictures ``[N, 3, S, S]``, 0 to 1, into what the encoder takes: ``[N, S, S, 3]``, 0 to 255."""
    return images.mul(255).permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """uint8 pictures in, unit embeddings out: exactly the graph that the model contract describes.

    Photos and tiles go through the same weights, as in Sample4Geo. The authors of UnifyGeo train one encoder per view
    (ground panoramas are unlike maps); we share because the model contract has one network for both.

    Args:
        config: backbone, weights, aggregation, embedding size, dense descriptors, frozen stages.

    Attributes:
        embedding_dim: length of an embedding.
        stage_channels: channels of the stages of stride 4, 8, 16, 32; empty when the backbone has no such stages.
        local_dim: channels of the dense descriptors; None when the model has none.

    Raises:
        TrainingError: the backbone is unknown or unfit for dense descriptors, or its weights are not to be had.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config)
        channels: int = self.backbone.num_features  # type: ignore[assignment]  # timm sets it on every model
        self.local_dim = config.local_dim
        self.pool = _pool(config, channels)
        self.stage_channels = _stage_channels(self.backbone)
        self.vlad = self._vlad()
        pooled = channels + (0 if self.vlad is None else self.vlad.out_channels)
        self.embedding_dim: int = config.embedding_dim or pooled
        self.project = nn.Linear(pooled, config.embedding_dim) if config.embedding_dim else nn.Identity()
        self.dense = self._dense_head()
        settings = timm.data.resolve_model_data_config(self.backbone)  # type: ignore[no-untyped-call, attr-defined]
        self.mean = nn.Buffer(255 * torch.tensor(settings["mean"]).view(1, 3, 1, 1))
        self.std = nn.Buffer(255 * torch.tensor(settings["std"]).view(1, 3, 1, 1))
        self._freeze()

    def forward(self, image: Tensor) -> Tensor:
        """Turn ``[N, S, S, 3]`` RGB, 0 to 255 (uint8 or float), into ``[N, D]`` float32 of unit length."""
        return self._unit(self.pooled(image))

    def pooled(self, image: Tensor) -> Tensor:
        """Turn ``[N, S, S, 3]`` into float32 ``[N, P]``: what ``project`` makes embeddings of."""
        if self.vlad is None:
            return self._pool(self.last_map(image), [])
        return self._pool(*self._maps(image))

    def spots(self, image: Tensor) -> Tensor:
        """Turn ``[N, S, S, 3]`` into the map ``[N, C, h, w]`` whose positions ``gem_vlad`` aggregates."""
        self._require_stages("model.aggregation=gem_vlad")
        return self._maps(image)[1][SPOTS]

    def features(self, image: Tensor, *, stages: bool = False, embedding: bool = True) -> Features:
        """Return all that the model says of pictures ``[N, S, S, 3]``: embedding, and the dense descriptors it has.

        Args:
            image: RGB, 0 to 255 (uint8 or float).
            stages: also the mean of each stage's map, strides 4 to 32. GeM would cut their negative half away: many
                backbones end a stage before any activation. Those of frozen stages carry no gradient.
            embedding: False leaves it empty, ``[N, 0]``, where nothing else needs the backbone.

        Raises:
            TrainingError: stages are asked of a backbone that has none.
        """
        if not stages and not isinstance(self.dense, DenseHead):
            whole = self(image) if embedding else image.new_zeros((len(image), 0), dtype=torch.float32)
            return Features(whole, local=self._own_local(image))
        self._require_stages("Features of stages")
        last, maps = self._maps(image)
        return Features(
            embedding=self._unit(self._pool(last, maps)),
            stages=tuple(m.mean((2, 3)) for m in maps) if stages else (),
            local=self.dense(maps[self._finest :]) if isinstance(self.dense, DenseHead) else self._own_local(image),
        )

    def last_map(self, image: Tensor) -> Tensor:
        """Turn ``[N, S, S, 3]`` into the backbone's last map ``[N, C, h, w]``, of which ``embed`` makes embeddings."""
        whole = self.backbone.forward_features if self._pools_itself else self.backbone
        maps: Tensor = whole(self._normalised(image))  # type: ignore[operator]
        return maps

    def embed(self, maps: Tensor) -> Tensor:
        """Turn ``[N, C, h, w]`` into ``[N, D]``: pooled, projected, of unit length.

        Raises:
            TrainingError: the embedding is made of another map as well (``gem_vlad``).
        """
        if self.vlad is not None:
            raise TrainingError("model.aggregation=gem_vlad makes embeddings of two maps, not of the last one alone.")
        return self._unit(self._pool(maps, []))

    def forget_activations(self) -> None:
        """Keep only what goes from stage to stage (or block to block), and compute the rest again going backward.

        Raises:
            TrainingError: timm cannot do that with this backbone.
        """
        try:
            self.backbone.set_grad_checkpointing(True)  # type: ignore[operator]
        except (AttributeError, AssertionError) as error:
            raise TrainingError(
                f"{self.config.backbone} knows no checkpointing: set optim.checkpointing=false."
            ) from error

    def train(self, mode: bool = True) -> Encoder:
        """Enter training mode, but for batch statistics: batches of mixed views are too small and odd to trust."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def _normalised(self, image: Tensor) -> Tensor:
        return (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std

    def _maps(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last map, as ``last_map`` gives it, and those of all stages."""
        last, maps = self.backbone.forward_intermediates(self._normalised(image), indices=len(STRIDES))  # type: ignore[operator]
        return last if self._pools_itself else self.backbone.forward_head(last), maps  # type: ignore[operator]

    def _unit(self, pooled: Tensor) -> Tensor:
        """Project what is pooled, and scale it to unit length; float32 whatever autocast says."""
        return F.normalize(full_precision(self.project(pooled)), dim=-1)

    def _pool(self, last: Tensor, maps: list[Tensor]) -> Tensor:
        whole = full_precision(self.backbone.forward_head(last) if self._pools_itself else self.pool(last))  # type: ignore[operator]
        return whole if self.vlad is None else torch.cat((whole, self.vlad(maps[SPOTS])), dim=1)

    def _vlad(self) -> VLAD | None:
        if self.config.aggregation != "gem_vlad":
            return None
        self._require_stages("model.aggregation=gem_vlad")
        return VLAD(self.stage_channels[SPOTS], self.config.vlad_dim, self.config.vlad_centres)

    def _dense_head(self) -> DenseHead | XFeat | None:
        config = self.config
        if config.local_dim is None:
            return None
        if config.local_from == "xfeat":
            if (config.local_dim, config.local_stride) != (DESCRIPTOR_DIM, STRIDE):
                raise TrainingError(
                    f"XFeat's descriptors have {DESCRIPTOR_DIM} channels and stride {STRIDE}: "
                    f"set model.local_dim={DESCRIPTOR_DIM} model.local_stride={STRIDE}."
                )
            xfeat = XFeat()
            if config.weights != "none":
                xfeat.load_published()
            return xfeat
        self._require_stages("model.local_dim")
        return DenseHead(self.stage_channels[self._finest :], config.local_dim)

    def _own_local(self, image: Tensor) -> Tensor | None:
        """Descriptors that do not come from the backbone."""
        if not isinstance(self.dense, XFeat):
            return None
        return F.normalize(self.dense(image.permute(0, 3, 1, 2).to(self.mean.dtype)), dim=1)

    @property
    def _pools_itself(self) -> bool:
        """Whether the backbone pools by timm's own head: its norm comes after the mean, and values keep their sign."""
        return self.config.aggregation == "avg"

    @property
    def _finest(self) -> int:
        """Index of the stage whose grid the dense descriptors have."""
        return STRIDES.index(self.config.local_stride)

    def _require_stages(self, wish: str) -> None:
        if not self.stage_channels:
            raise TrainingError(
                f"{wish}: {self.config.backbone} has no maps of strides 4, 8, 16 and 32. "
                "Take a convolutional backbone, such as tf_efficientnet_lite2 or convnext_tiny."
            )

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


def _pool(config: ModelConfig, channels: int) -> nn.Module:
    if config.aggregation == "avg":
        return nn.Identity()  # the backbone pools
    return AttentionGeM(channels) if config.aggregation == "attention_gem" else GeM()


def _stage_channels(backbone: nn.Module) -> tuple[int, ...]:
    """Channels of timm's last four feature maps, if those have the strides of a convolutional backbone."""
    info: Sequence[dict[str, int]] = [*getattr(backbone, "feature_info", [])][-len(STRIDES) :]
    if tuple(stage["reduction"] for stage in info) != STRIDES:
        return ()
    return tuple(stage["num_chs"] for stage in info)
