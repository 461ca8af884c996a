"""What an objective is: the views it wants, and its losses over their features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from training.batch import Batch, Features


@dataclass(frozen=True)
class ModelShape:
    """What a method must know of model and data to build its heads.

    Attributes:
        embedding_dim: length of an embedding.
        stage_channels: channels of the backbone's stages, shallow to deep.
        local_dim: channels of the dense descriptors; None when the model has none.
        places: number of places in the training set.
        image_size: side of the square input, px.
    """

    embedding_dim: int
    stage_channels: tuple[int, ...]
    local_dim: int | None
    places: int
    image_size: int


class Method(nn.Module, ABC):
    """An objective. Its parameters are trained with the encoder's and saved in checkpoints, never exported.

    Progress signals and other memory live in buffers, so that checkpoints hold them. ``forward`` runs once a step, over
    the whole batch of all processes, also when gradients are cached: it may update its memory while ``self.training``.
    """

    #: True asks the encoder for pooled features of every stage.
    needs_stages: bool = False
    #: False asks for no embeddings, and saves the time of making them: they have no columns then.
    needs_embedding: bool = True
    #: True says that the method turns tiles itself, and that the tile it compares with has to stay upright.
    turns_tiles: bool = False

    def views(self, batch: Batch, progress: float, generator: Generator) -> dict[str, Tensor]:
        """Return the images ``[B, 3, S, S]`` to encode, by name; every method has at least ``photo`` and ``tile``.

        Args:
            batch: the pairs.
            progress: share of training that is done, 0 to 1.
            generator: the source of all randomness, on the CPU.
        """
        return {"photo": batch.photo, "tile": batch.tile}

    def mined(self, photo: Tensor, progress: float) -> Tensor:
        """Return photos ``[N, 3, S, S]`` as hard negatives are to be mined with; ``progress`` as in ``views``."""
        return photo

    @abstractmethod
    def forward(self, features: dict[str, Features], batch: Batch) -> dict[str, Tensor]:
        """Return losses, each ``[]``: ``loss`` is the one to descend, the others are its parts, for the log.

        Args:
            features: of every view, by its name; row i shows place ``batch.place[i]``.
            batch: the pairs; methods read places, offsets and overlaps here, not pixels.
        """
