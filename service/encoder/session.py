"""The ONNX session: images in, embeddings out, on the device that was asked for."""

import logging
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.encoder.contract import check_contract
from service.errors import ContractBroken, DeviceUnavailable

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Images = NDArray[np.uint8]
Embeddings = NDArray[np.float32]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Past this a batch no longer fits a CPU's caches: with the default model two cores embed 96 images a second in batches
# of 4, 88 in batches of 8, and 71 in batches of 16.
_IMAGES_PER_CORE = 2
# Cosine between the canary's embedding now and at warm-up; kernels may sum in another order for another batch size,
# which moves a unit vector by about 1e-6 in float32 and 1e-3 with reduced-precision kernels on a GPU.
_CANARY_TOLERANCE = 1e-3


class Encoder:
    """An ONNX model that keeps the contract, loaded and warmed up.

    Args:
        path: the model file.
        device: ``auto`` takes CUDA when it is there, else the CPU.
        threads: CPU threads of one inference; 0 leaves the choice to onnxruntime.
        cuda_device: number of the GPU.
        cuda_memory_bytes: limit of the GPU memory arena; 0 for none.

    Raises:
        ContractBroken: the file breaks a clause, or its numbers do.
        DeviceUnavailable: the device that was asked for is not the one the session got.
    """

    def __init__(
        self,
        path: Path,
        device: Device = "auto",
        threads: int = 0,
        cuda_device: int = 0,
        cuda_memory_bytes: int = 0,
    ) -> None:
        self.contract = check_contract(path)
        self._threads = threads
        wanted = _choose_providers(device)
        settings = {_PROVIDERS["cuda"]: cuda_options(cuda_device, cuda_memory_bytes)}
        if _PROVIDERS["cuda"] in wanted:
            _preload_cuda()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # threads that wait for each other in a loop would take the cores on which the next photos are decoded
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors only: a warning per node would drown the service's own log
        try:
            providers = [(name, settings.get(name, {})) for name in wanted]
            self._session = ort.InferenceSession(os.fspath(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises its own classes, one per status code
            raise ContractBroken(
                f"{path.name} breaks the model contract: onnxruntime cannot load it ({error}). "
                "Export it again with `aerofix-train export`."
            ) from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted[0]:
            fallback = f"onnxruntime gave {self.provider} instead of {wanted[0]}"
            if device != "auto":
                raise DeviceUnavailable(
                    f"device {device} was asked for but {fallback}. Run `nvidia-smi`: it must list GPU "
                    f"{cuda_device} and CUDA 13 or newer (driver 580), in a container too (`docker run --gpus all`). "
                    "The CUDA libraries come with `pip install aerofix[gpu]`. Or run with --device cpu."
                )
            log.warning("%s; name --device cuda to insist on the GPU", fallback)
        self._canary = np.random.default_rng(0).integers(0, 256, (2, *self._shape), dtype=np.uint8)
        self._canary_embedding = self._warm_up(path)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.contract.image_size, self.contract.image_size, 3)

    def encode(self, images: Images) -> Embeddings:
        """Embed a batch.

        Args:
            images: uint8 ``[N, S, S, 3]``, RGB.

        Returns:
            float32 ``[N, D]``, unit norm; a row is not finite when the model fails on that image.
        """
        embeddings: Embeddings = self._session.run(["embedding"], {"image": images})[0]
        return embeddings

    def useful_batch(self, most: int) -> int:
        """Images to run at once, ``most`` or fewer: what fits a CPU's caches; a GPU takes all that it is given."""
        if self.provider != _PROVIDERS["cpu"]:
            return most
        return min(most, _IMAGES_PER_CORE * (self._threads or os.cpu_count() or 1))

    def canary_agrees(self) -> bool:
        """Whether the canary image still embeds to its warm-up vector, which a corrupted device would not give."""
        embedding = self.encode(self._canary[:1])[0]
        return bool(embedding @ self._canary_embedding > 1 - _CANARY_TOLERANCE)

    def _warm_up(self, path: Path) -> Embeddings:
        """Run the first inference, check the numeric clauses and return the canary's embedding, ``[D]``."""

        def require(holds: bool, clause: str) -> None:
            if not holds:
                raise ContractBroken(f"{path.name} breaks the model contract: {clause}. Export it again.")

        try:
            pair, single = self.encode(self._canary), self.encode(self._canary[:1])
        except Exception as error:  # see __init__
            raise ContractBroken(f"{path.name} breaks the model contract: inference fails ({error}).") from error
        require(
            pair.shape == (2, self.contract.embedding_dim), f"`embedding` must be [N, D], a batch gave {pair.shape}"
        )
        require(bool(np.isfinite(pair).all()), "`embedding` must be finite")
        norms = np.linalg.norm(pair, axis=1)
        require(bool(np.abs(norms - 1).max() < 1e-3), f"`embedding` must have unit norm, norms are {norms.round(4)}")
        require(
            bool(np.abs(pair[0] - single[0]).max() < 1e-3),
            "an embedding must not depend on the other images of its batch",
        )
        canary: Embeddings = single[0]
        return canary


def _choose_providers(device: Device) -> list[str]:
    """The providers to ask onnxruntime for, best first; only ``auto`` may end up on a later one."""
    available: list[str] = ort.get_available_providers()
    if device == "auto":
        return [provider for provider in (_PROVIDERS["cuda"], _PROVIDERS["cpu"]) if provider in available]
    wanted = _PROVIDERS[device]
    if wanted not in available:
        raise DeviceUnavailable(
            f"device {device} was asked for but this onnxruntime offers only {', '.join(available)}. "
            "Install the GPU build: `pip uninstall onnxruntime faiss-cpu`, then `pip install aerofix[gpu]`. Or use "
            "--device cpu."
        )
    return [wanted]


def cuda_options(device: int, memory_bytes: int) -> dict[str, str]:
    """Options of onnxruntime's CUDA provider, each for a service that gets batches of every size."""
    options = {
        "device_id": str(device),
        # the default searches all algorithms again for every new batch size, seconds each, in the middle of serving
        "cudnn_conv_algo_search": "HEURISTIC",
        # the default doubles the arena, which takes what the index on the same GPU needs
        "arena_extend_strategy": "kSameAsRequested",
    }
    if memory_bytes:
        options["gpu_mem_limit"] = str(memory_bytes)
    return options


def _preload_cuda() -> None:
    """Load CUDA and cuDNN from the packages that ``aerofix[gpu]`` brings, where the dynamic linker does not look."""
    said = StringIO()
    with redirect_stdout(said):  # it prints what it misses, and stdout may be a user's JSON
        ort.preload_dlls(directory="")  # "": those packages, and never torch's
    if said.getvalue():
        log.warning("CUDA libraries: %s", said.getvalue().strip())
