"""No objective of its own: for training what rides on a method, and nothing else."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass
from torch import Tensor

from training.batch import Batch, Features
from training.methods.base import Method, ModelShape
from training.schema import STRICT


@dataclass(frozen=True, config=STRICT)
class NothingConfig:
    """No knobs."""

    name: Literal["none"] = "none"


class Nothing(Method):
    """A loss of 0. With ``dense`` on top, descriptors that share no weight with the embedding are trained alone."""

    needs_embedding = False

    def __init__(self, config: NothingConfig, shape: ModelShape) -> None:
        super().__init__()

    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` alone."""
        return {"loss": features["photo"].embedding.new_zeros(())}
