"""Embeddings of a data set's images, from a checkpoint or from the ONNX file that the service runs."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
import torch
from rich.progress import track
from torch import Tensor

from training.batch import Features
from training.checkpoint import load_encoder, read_weights, start_from
from training.config import Config
from training.data.base import Images
from training.data.datasets import DatasetConfig
from training.errors import TrainingError
from training.evaluation.search import Embeddings
from training.models.encoder import Encoder
from training.precision import Precision, autocast

#: Threads that read images: decoders and resamplers release Python's lock.
LOADERS = min(8, os.cpu_count() or 1)
#: Images that a thread reads at once.
PIECE = 16


class Embedder(Protocol):
    """A model that is judged.

    Attributes:
        model_id: what the results are filed under.
        image_size: side of the square input, px.
        resize: how images become square, ``squash`` or ``center_crop``.
    """

    model_id: str
    image_size: int
    resize: str

    def __call__(self, images: Tensor) -> Embeddings:
        """``[n, 3, S, S]``, 0 to 1 → ``[n, D]`` float32 of unit length."""


def _no_descriptors(model_id: str) -> TrainingError:
    return TrainingError(f"{model_id} has no dense descriptors to re-rank by: train one with model.local_dim=64.")


class TorchEmbedder:
    """A live encoder, in evaluation mode, on the device where it is.

    Args:
        encoder: ``[n, S, S, 3]`` uint8 → ``[n, D]``.
        model_id: name of the model.
        image_size: side of the input, px.
        resize: ``squash`` or ``center_crop``.
        precision: of autocast, as in training; ``fp32`` is none.
        data: the data set that it was trained on, if that is known.
    """

    def __init__(
        self,
        encoder: Encoder,
        model_id: str,
        image_size: int,
        resize: str,
        precision: Precision = "fp32",
        data: DatasetConfig | None = None,
    ) -> None:
        self.encoder, self.model_id, self.image_size, self.resize = encoder, model_id, image_size, resize
        self.precision, self.data = precision, data

    def require_descriptors(self) -> None:
        """Check that the model has dense descriptors.

        Raises:
            TrainingError: it has none.
        """
        if self.encoder.local_dim is None:
            raise _no_descriptors(self.model_id)

    def __call__(self, images: Tensor) -> Embeddings:
        """``[n, 3, S, S]``, 0 to 1 → ``[n, D]`` float32 of unit length."""
        device = next(self.encoder.parameters()).device
        with torch.inference_mode(), autocast(self.precision, device):
            embedding: Tensor = self.encoder(as_bytes(images).to(device))
        return embedding.float().cpu().numpy()

    def features(self, images: Tensor) -> Features:
        """Turn ``[n, 3, S, S]``, 0 to 1, into embeddings and dense descriptors.

        Raises:
            TrainingError: the model has none.
        """
        self.require_descriptors()
        device = next(self.encoder.parameters()).device
        with torch.inference_mode(), autocast(self.precision, device):
            features = self.encoder.features(as_bytes(images).to(device))
        return features


class OnnxEmbedder:
    """A model file, on the GPU when this onnxruntime has one.

    Raises:
        TrainingError: the file is no model of ours.
    """

    def __init__(self, path: Path) -> None:
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in ort.get_available_providers()]
        try:
            self.session = ort.InferenceSession(str(path), providers=providers)
        except Exception as error:  # onnxruntime has an exception for every way a file can be bad
            raise TrainingError(f"{path} is no readable ONNX file: make it with aerofix-train export.") from error
        metadata = self.session.get_modelmeta().custom_metadata_map
        try:
            self.model_id = metadata["aerofix.model_id"]
            self.image_size = int(metadata["aerofix.image_size"])
            self.resize = metadata["aerofix.resize"]
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{path} lacks aerofix's metadata: make it with aerofix-train export.") from error

    def require_descriptors(self) -> None:
        """Check that the model has dense descriptors.

        Raises:
            TrainingError: it has none.
        """
        if "local" not in {output.name for output in self.session.get_outputs()}:
            raise _no_descriptors(self.model_id)

    def __call__(self, images: Tensor) -> Embeddings:
        """``[n, 3, S, S]``, 0 to 1 → ``[n, D]`` float32 of unit length.

        Raises:
            TrainingError: the images are no squares.
        """
        if images.shape[2] != images.shape[3]:
            raise TrainingError(f"{self.model_id} takes squares: evaluate it with panorama_aspect=1.")
        embedding: Embeddings = self.session.run(["embedding"], {"image": as_bytes(images).numpy()})[0]
        return embedding

    def features(self, images: Tensor) -> Features:
        """Turn ``[n, 3, S, S]``, 0 to 1, into embeddings and dense descriptors.

        Raises:
            TrainingError: the model has none.
        """
        self.require_descriptors()
        embedding, local = self.session.run(["embedding", "local"], {"image": as_bytes(images).numpy()})
        return Features(torch.from_numpy(embedding), local=torch.from_numpy(local))


class Flipped:
    """Test-time flip: the sum of the embeddings of an image and of its mirror image, back at unit length.

    The test scripts of University-1652 and SUES-200 add the two *before* they normalise, so that the view with the
    longer feature weighs more; embeddings of unit length weigh the same.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self.model_id, self.image_size, self.resize = embedder.model_id, embedder.image_size, embedder.resize

    def __call__(self, images: Tensor) -> Embeddings:
        """``[n, 3, S, S]``, 0 to 1 → ``[n, D]`` float32 of unit length."""
        both = self.embedder(images) + self.embedder(images.flip(3))
        length = np.linalg.norm(both, axis=1, keepdims=True)
        summed: Embeddings = both / np.maximum(length, np.finfo(np.float32).tiny)
        return summed


def load_embedder(path: Path, config: Config | None = None) -> Embedder:
    """Load a model: an ``.onnx`` file, a checkpoint of ``fit``, or published weights of a timm model.

    Args:
        path: of the file.
        config: of the network that published weights are of; files of ours hold their own.

    Raises:
        TrainingError: the file is missing or none of these, published weights come without a config that fits, or
            another file with one.
    """
    if not path.is_file():
        raise TrainingError(f"There is no model file {path}: give an .onnx file or the checkpoint.pt of a run.")
    published = path.suffix != ".onnx" and "config" not in read_weights(path)
    if config is not None and not published:
        raise TrainingError(
            f"{path} says itself what network it is of: leave out --config, which is for weights that others published."
        )
    if path.suffix == ".onnx":
        return OnnxEmbedder(path)
    encoder, config = _published(path, config) if published else load_encoder(path)
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode() + b"\0" + value.cpu().contiguous().numpy().tobytes())
    model_id = f"{path.stem if published else f'{config.name}-checkpoint'}-{digest.hexdigest()[:8]}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = config.model
    precision = config.optim.precision
    return TorchEmbedder(encoder.to(device), model_id, model.image_size, model.resize, precision, config.data)


def _published(path: Path, config: Config | None) -> tuple[Encoder, Config]:
    """A network with nothing of its own but what the file gives."""
    if config is None:
        raise TrainingError(
            f"{path} is no checkpoint of aerofix-train, which would say what network it is of: for published weights "
            "give the config of theirs, such as --config configs/methods/sample4geo.yaml."
        )
    if config.model.aggregation != "avg" or config.model.embedding_dim is not None:
        raise TrainingError(
            "Published weights are judged as they are, without a head of ours: set model.aggregation=avg and "
            "model.embedding_dim=null."
        )
    encoder = Encoder(replace(config.model, weights="none", local_dim=None)).eval()
    start_from(encoder, path)
    return encoder, config


def embed(embedder: Embedder, images: Images, *, batch: int = 64, label: str = "", quiet: bool = False) -> Embeddings:
    """Embed all images, a batch at a time: ``[N, D]`` float32.

    Args:
        embedder: the model.
        images: what to embed.
        batch: images loaded and run at once.
        label: shown beside the progress bar.
        quiet: no progress bar.

    Raises:
        TrainingError: there are no images.
    """
    if not len(images):
        raise TrainingError(f"There are no {label or 'images'}: check the folder of the data set.")
    batches = load_batches(images, range(len(images)), batch)
    steps = -(-len(images) // batch)
    return np.concatenate([embedder(part) for part in track(batches, label, steps, disable=quiet)])


def load_batches(images: Images, rows: Sequence[int], batch: int) -> Iterator[Tensor]:
    """Load images of these rows, ``[batch, 3, S, S]`` each; threads read the next batch while the model runs."""
    with ThreadPoolExecutor(LOADERS) as pool:
        ahead: deque[list[Future[Tensor]]] = deque()
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            ahead.append([pool.submit(images.load, part[i : i + PIECE]) for i in range(0, len(part), PIECE)])
            if len(ahead) > 1:
                yield _joined(ahead.popleft())
        while ahead:
            yield _joined(ahead.popleft())


def _joined(pieces: list[Future[Tensor]]) -> Tensor:
    return torch.cat([piece.result() for piece in pieces])


def as_bytes(images: Tensor) -> Tensor:
    """Turn ``[n, 3, S, S]``, 0 to 1, into ``[n, S, S, 3]`` uint8, which is what the service feeds."""
    return images.mul(255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
