"""The ONNX session: images in, features out, on the device that was asked for."""

import logging
import os
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.utils
import onnxruntime as ort
from numpy.typing import NDArray

from service.encoder.contract import check_contract
from service.errors import ContractBroken, DeviceUnavailable
from service.settings import Settings
from service.threads import cores

log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
Images = NDArray[np.uint8]
Embeddings = NDArray[np.float32]
LocalMaps = NDArray[np.float32]

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Past this a batch no longer fits a CPU's caches: with the default model two cores embed 96 images a second in batches
# of 4, 88 in batches of 8, and 71 in batches of 16.
_IMAGES_PER_CORE = 2
# Cosine between the canary's embedding now and at warm-up; kernels may sum in another order for another batch size,
# which moves a unit vector by about 1e-6 in float32 and 1e-3 with reduced-precision kernels on a GPU.
_CANARY_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Features:
    """What the model makes of N images.

    Attributes:
        embedding: float32 ``[N, D]``, unit L2 norm; a row is not finite when the model fails on that image.
        local: descriptors of the positions, float32 ``[N, C, h, w]``, unit L2 norm over C; None when it gives none.
    """

    embedding: Embeddings
    local: LocalMaps | None = None


class Encoder:
    """An ONNX model that keeps the contract, loaded and warmed up.

    Args:
        path: the model file.
        device: ``auto`` takes CUDA when it is there, else the CPU.
        threads: CPU threads of one inference; 0 leaves the choice to onnxruntime.
        cuda_device: number of the GPU.
        cuda_memory_bytes: limit of the GPU memory arenas, shared evenly by the model's sessions; 0 for none.

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
        settings = {_PROVIDERS["cuda"]: cuda_options(cuda_device, cuda_memory_bytes // self._sessions)}
        if _PROVIDERS["cuda"] in wanted:
            _preload_cuda()
        ort.set_default_logger_severity(3)  # its lines are not JSON as ours are: errors only, such as a missing library
        for provider in wanted:
            try:
                self._start(path, provider, settings.get(provider, {}))
                return
            except _NotOnCuda as error:
                if device != "auto":
                    raise DeviceUnavailable(
                        f"device {device} was asked for but {error}. Run `nvidia-smi`: it must list GPU {cuda_device} "
                        "with free memory and CUDA 13 or newer (driver 580), in a container too (`docker run --gpus "
                        "all`). The CUDA libraries come with `pip install aerofix[gpu]`. Or run with --device cpu."
                    ) from error
                log.warning("%s; the model runs on the CPU. Name --device cuda to insist on the GPU", error)

    @classmethod
    def of(cls, settings: Settings) -> "Encoder":
        """Return the encoder that settings ask for; see the class for what is raised."""
        return cls(settings.model, settings.device, settings.threads, settings.cuda_device, settings.cuda_memory_bytes)

    @property
    def _sessions(self) -> int:
        """Two for a model whose descriptors have to be made for turned copies too, else one."""
        return 1 + (self.contract.local_shape is not None and self.contract.calibration.local.turns > 1)

    def _start(self, path: Path, provider: str, options: dict[str, str]) -> None:
        """Load the model on a provider, and run it once.

        Raises:
            ContractBroken: the CPU cannot run the model, or its numbers break a clause.
            _NotOnCuda: the same on CUDA, or onnxruntime did not take CUDA.
        """
        self.provider = provider
        self._session = self._open(path, provider, options)
        self._describe = self._open(path, provider, options, describe=True) if self._sessions > 1 else None
        self._canary = np.random.default_rng(0).integers(0, 256, (2, *self._shape), dtype=np.uint8)
        self._canary_embedding = self._warm_up(path)

    def _open(self, path: Path, provider: str, options: dict[str, str], describe: bool = False) -> ort.InferenceSession:
        """A session of the whole model, or of the part that leads to ``local``; see ``_start`` for errors."""
        chosen = ort.SessionOptions()
        chosen.intra_op_num_threads = self._threads
        # threads that wait for each other in a loop would take the cores on which the next photos are decoded
        chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
        chosen.log_severity_level = 4  # nothing: what goes wrong here is raised as well
        try:
            model = _describing_part(path) if describe else os.fspath(path)
            # Its fallback makes a session that fails again on the CPU, at the start or in the middle of serving, and
            # prints so; whoever asked for CUDA would never know, and stdout may be a user's JSON.
            session = ort.InferenceSession(model, chosen, providers=[(provider, options)], enable_fallback=0)
        except Exception as error:  # onnxruntime raises its own classes, one per status code
            if provider == _PROVIDERS["cuda"]:
                raise _NotOnCuda(f"onnxruntime cannot load the model on it ({error})") from error
            raise ContractBroken(
                f"{path.name} breaks the model contract: onnxruntime cannot load it ({error}). "
                "Export it again with `aerofix-train export`."
            ) from error
        got = session.get_providers()[0]
        if got != provider:  # a library that is missing is no error to onnxruntime
            raise _NotOnCuda(f"onnxruntime gave {got} instead of {provider}")
        return session

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.contract.image_size, self.contract.image_size, 3)

    def encode(self, images: Images) -> Features:
        """Run the model on a batch: uint8 ``[N, S, S, 3]``, RGB."""
        outputs = ["embedding"] if self.contract.local_shape is None else ["embedding", "local"]
        return Features(*self._session.run(outputs, {"image": images}))

    def describe(self, images: Images) -> LocalMaps:
        """Compute descriptors of images, ``[N, C, h, w]``, without embeddings: that part of the graph, a quarter of it.

        Only for models that give descriptors. One whose calibration asks for no turns has the whole graph alone.

        Args:
            images: uint8 ``[N, S, S, 3]``.
        """
        local: LocalMaps = (self._describe or self._session).run(["local"], {"image": images})[0]
        return local

    def describe_turned(self, images: Images) -> LocalMaps:
        """Return descriptors of images turned counter-clockwise by 90°, 180° and 270°: ``[N, 3, C, h, w]``.

        Only for models whose calibration asks for turns.

        Args:
            images: uint8 ``[N, S, S, 3]``, as they are.
        """
        if self._describe is None:
            raise ValueError("this model's descriptors know any turn")
        turned = np.stack([np.rot90(images, k, axes=(1, 2)) for k in (1, 2, 3)], axis=1)
        local = self.describe(turned.reshape(-1, *self._shape))
        return local.reshape(len(images), 3, *local.shape[1:])

    def useful_batch(self, most: int) -> int:
        """Tell how many images run at once, ``most`` or fewer: what fits a CPU's caches; a GPU takes all."""
        if self.provider != _PROVIDERS["cpu"]:
            return most
        return min(most, _IMAGES_PER_CORE * (self._threads or cores()))

    def canary_agrees(self) -> bool:
        """Say whether the canary image still embeds to its warm-up vector, which a corrupted device would not give.

        Raises:
            Exception: whatever onnxruntime raises when a session cannot run any more.
        """
        embedding = self.encode(self._canary[:1]).embedding[0]
        turned = True if self._describe is None else bool(np.isfinite(self.describe_turned(self._canary[:1])).all())
        return turned and bool(embedding @ self._canary_embedding > 1 - _CANARY_TOLERANCE)

    def _warm_up(self, path: Path) -> Embeddings:
        """Run the first inference, check the numeric clauses and return the canary's embedding, ``[D]``."""

        def require(holds: bool, clause: str) -> None:
            if not holds:
                if self.provider == _PROVIDERS["cuda"]:  # whose fault it is, the CPU tells
                    raise _NotOnCuda(f"the model breaks its contract there: {clause}")
                raise ContractBroken(f"{path.name} breaks the model contract: {clause}. Export it again.")

        try:
            pair, single = self.encode(self._canary), self.encode(self._canary[:1])
            turned = None if self._describe is None else self.describe_turned(self._canary[:1])
        except Exception as error:  # see _open
            if self.provider == _PROVIDERS["cuda"]:
                raise _NotOnCuda(f"onnxruntime cannot run the model on it ({error})") from error
            raise ContractBroken(f"{path.name} breaks the model contract: inference fails ({error}).") from error
        outputs: list[tuple[str, NDArray[np.float32], NDArray[np.float32], tuple[int, ...]]]
        outputs = [("embedding", pair.embedding, single.embedding, (self.contract.embedding_dim,))]
        if self.contract.local_shape is not None and pair.local is not None and single.local is not None:
            outputs.append(("local", pair.local, single.local, self.contract.local_shape))
        for name, two, one, shape in outputs:
            require(two.shape == (2, *shape), f"`{name}` must be [N, {str(shape)[1:-1]}], a batch gave {two.shape}")
            require(bool(np.isfinite(two).all()), f"`{name}` must be finite")
            norms = np.linalg.norm(two, axis=1)
            low, high = float(norms.min()), float(norms.max())
            require(0.999 < low <= high < 1.001, f"`{name}` must have unit norm, norms are {low:.4f} to {high:.4f}")
            require(
                bool(np.abs(two[0] - one[0]).max() < 1e-3), f"`{name}` must not depend on the other images of its batch"
            )
        require(turned is None or bool(np.isfinite(turned).all()), "`local` must be finite for turned images too")
        canary: Embeddings = single.embedding[0]
        return canary


class _NotOnCuda(Exception):
    """The model does not run on CUDA, and why, in words that follow "but"."""


def _describing_part(path: Path) -> bytes:
    """The nodes that lead to ``local``: onnxruntime runs a whole graph, whatever outputs are asked."""
    part: bytes = (
        onnx.utils.Extractor(onnx.load(os.fspath(path))).extract_model(["image"], ["local"]).SerializeToString()
    )
    return part


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
    """Return options of onnxruntime's CUDA provider, each for a service that gets batches of every size."""
    options = {
        "device_id": str(device),
        # the default searches all algorithms again for every new batch size, seconds each, in the middle of serving
        "cudnn_conv_algo_search": "HEURISTIC",
        # the default doubles the arena, which takes what the index on the same GPU needs
        "arena_extend_strategy": "kSameAsRequested",
        # the default, TF32, keeps 10 bits of a number: it moves the default model's descriptors by up to 9e-4, nearly
        # what _warm_up allows, and places and inliers were calibrated in full float32
        "use_tf32": "0",
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
