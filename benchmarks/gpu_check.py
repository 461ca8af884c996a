"""One look at a GPU, in minutes: does everything that aerofix runs on one work, and how fast?

    make gpu-check                          or: python benchmarks/gpu_check.py --device cuda

Each part prints one or a few rows, and says in one row why it did not run where something is missing: onnxruntime
without CUDA, FAISS without GPUs, no PyTorch. With ``--device cpu --small`` all of it runs on any machine, to try the
script itself.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
import onnxruntime as ort  # noqa: E402

from service.encoder.session import Encoder  # noqa: E402
from service.errors import AerofixError  # noqa: E402

Row = tuple[str, str]
TRAINED = {"default": ("tf_efficientnet_lite2", 224, 64), "convnext": ("convnext_base.fb_in22k_ft_in1k_384", 384, 32)}
"""Each step that is tried has this backbone, side in pixels and number of pairs."""

LOST_S = 120
"""A lost device must be told within this time; a process that says nothing for so long hangs."""

LOSE = """
import ctypes, sys
import numpy as np
from pathlib import Path
from service.encoder.session import Encoder
from service.errors import EmbeddingError
encoder = Encoder(Path(sys.argv[1]), "cuda")
images = np.zeros((2, encoder.contract.image_size, encoder.contract.image_size, 3), np.uint8)
encoder.encode(images)
cuda = ctypes.CDLL("libcuda.so.1")
cuda.cuDevicePrimaryCtxReset_v2(0)
try:
    encoder.encode(images)
except EmbeddingError as error:
    print("told:", error.detail)
else:
    print("not noticed")
"""
"""Takes the CUDA context away from under its own process, and nobody else's, as a GPU does that falls off the bus."""


def main() -> None:
    """Run every part and print the table; the exit status is 1 when one did not run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--model", type=Path, default=ROOT / "models/aerofix-lite2.onnx")
    parser.add_argument("--small", action="store_true", help="sizes for trying the script, not for figures")
    given = parser.parse_args()
    missing = 0
    for title, part in (
        ("encoder", lambda: encoder_rows(given.model, given.device, given.small)),
        ("search", lambda: search_rows(given.device, 10_000 if given.small else 1_000_000)),
        ("losing the device", lambda: losing_rows(given.model, given.device)),
        ("training, default", lambda: training_rows("default", given.device, given.small)),
        ("training, ConvNeXt-B 384", lambda: training_rows("convnext", given.device, given.small)),
    ):
        missing += not print_part(title, part)
    if missing:
        raise SystemExit(f"\n{missing} parts did not run; why stands above.")


def print_part(title: str, part: Callable[[], Iterator[Row]]) -> bool:
    """Print a part's rows, or why there are none; returns whether it ran."""
    print(f"\n{title}", flush=True)
    try:
        for name, value in part():
            print(f"  {name:<44} {value}", flush=True)
    except (AerofixError, ImportError, OSError) as error:
        print(f"  not run: {getattr(error, 'detail', error)}", flush=True)
        return False
    return True


def encoder_rows(model: Path, device: str, small: bool) -> Iterator[Row]:
    """Try the encoder against the CPU, its rate by batch size, and what changing batch sizes cost."""
    here, cpu = Encoder(model, device), Encoder(model, "cpu")  # type: ignore[arg-type]
    side = here.contract.image_size
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, side // 16, side // 16, 3), dtype=np.uint8)
    images = coarse.repeat(16, 1).repeat(16, 2)
    few = images[:8]
    cosines = (here.encode(few).embedding * cpu.encode(few).embedding).sum(axis=1)
    yield "cosine with the CPU, lowest of 8", f"{cosines.min():.6f}"
    peak, work = matrix_rate(device, 512 if small else 8192), flops_an_image(model)
    yield "measured float32 matrix rate", f"{peak / 1e12:.2f} TFLOP/s"
    rates = {}
    for batch in (1, 4) if small else (1, 4, 8, 16, 32, 64):
        rates[batch] = batch / seconds(lambda b=batch: here.encode(images[:b]), 3 if small else 20)
        yield f"batches of {batch}", f"{rates[batch]:.0f} images/s, {rates[batch] * work / peak:.0%} of the matrix rate"
    sizes = rng.integers(1, 5 if small else 33, 6 if small else 60).tolist()
    steady = max(rates)
    started = time.perf_counter()
    for size in sizes:
        here.encode(images[:size])
    rate = sum(sizes) / (time.perf_counter() - started)
    yield "batches of changing size", f"{rate:.0f} images/s, {rate / rates[steady]:.2f} of batches of {steady}"


def search_rows(device: str, count: int) -> Iterator[Row]:
    """Try the index that the service would use on this device, against NumPy."""
    from service.ground.index.gpu import make_index

    dim, queries = 512, 16
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = make_index(dim, device)
    for start in range(0, count, 100_000):
        ids = np.arange(start, min(start + 100_000, count))
        index.upsert(ids, vectors[ids].astype(np.float16), np.zeros((len(ids), 2)))
    asked = vectors[rng.integers(0, count, queries)] + rng.standard_normal((queries, dim), dtype=np.float32) / 30
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    k = 128
    _, found = index.search(asked, k)
    exact = np.argsort(-(asked @ vectors.T), axis=1)[:, :k]
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    yield f"recall@{k} of {count} x {dim}", f"{recall:.4f}"
    yield (
        "one search",
        f"{1e3 * seconds(lambda: index.search(asked[:1], k), 5):.2f} ms; NumPy on the CPU "
        + (f"{1e3 * seconds(lambda: np.argpartition(-(vectors @ asked[0]), k), 2):.1f} ms"),
    )
    yield "index", str(index.describe())


def losing_rows(model: Path, device: str) -> Iterator[Row]:
    """Try whether the encoder tells that its GPU is gone, instead of hanging or crashing."""
    if device == "cpu":
        yield "a CPU cannot be lost", "not run"
        return
    ctypes.CDLL("libcuda.so.1")
    command = [sys.executable, "-c", LOSE, str(model)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LOST_S)
    except subprocess.TimeoutExpired:
        yield "CUDA context reset", f"HANGS for {LOST_S} s"
        return
    said = done.stdout.strip() or done.stderr.strip()[-200:]
    yield "CUDA context reset", said if done.returncode == 0 else f"DIES with {done.returncode}: {said}"


def training_rows(which: str, device: str, small: bool) -> Iterator[Row]:
    """Try a training step in bf16, and its peak memory."""
    import torch

    from training.batch import Batch
    from training.config import parse_config
    from training.distributed import World
    from training.step import train_step
    from training.train import make_state

    backbone, side, pairs = TRAINED[which]
    if small:
        backbone, side, pairs = "tf_efficientnet_lite0", 64, 4
    target = torch.device(device)
    if device == "cuda" and not torch.cuda.is_available():
        raise OSError("PyTorch finds no CUDA device; install .[train] on a machine with a GPU, and run nvidia-smi.")
    config = parse_config(
        {
            "model": {"backbone": backbone, "weights": "none", "image_size": side},
            "optim": {"precision": "bf16", "batch_pairs": pairs},
            "data": {"root": "unused"},
        }
    )
    world = World(0, 1, target)
    state = make_state(config, pairs, world)
    generator = torch.Generator(target).manual_seed(0)
    photo = torch.rand(pairs, 3, side, side, device=target)
    numbers = torch.arange(pairs, device=target)
    ones = torch.ones(pairs, device=target)
    batch = Batch(photo, photo.flip(0), numbers, torch.zeros(pairs, 2, device=target), 30 * ones, ones)

    def step() -> None:
        train_step(state, batch, config.optim, world, generator, progress=0.5, lr=1e-4)
        if device == "cuda":
            torch.cuda.synchronize()

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = seconds(step, 2 if small else 10)
    yield f"{pairs} pairs at {side} px", f"{1e3 * took:.0f} ms a step, {2 * pairs / took:.0f} images/s"
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        yield "peak memory", f"{peak / 2**30:.2f} GiB, {peak / 2**20 / (2 * pairs):.0f} MiB an image"


def matrix_rate(device: str, side: int) -> float:
    """Return floating-point operations a second of a float32 matrix product, run by onnxruntime as the model is."""
    shape = [side, side]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("ReduceMax", ["c"], ["out"], keepdims=0)],
        "product",
        [value("a", TensorProto.FLOAT, shape), value("b", TensorProto.FLOAT, shape)],
        [value("out", TensorProto.FLOAT, [])],
    )
    product = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    provider = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}[device]
    options = [{"use_tf32": "0"}] if device == "cuda" else [{}]
    session = ort.InferenceSession(product.SerializeToString(), providers=[provider], provider_options=options)
    given = np.ones(shape, np.float32)
    bound = session.io_binding()  # the matrices stay on the device: only the product is timed
    for name in ("a", "b"):
        bound.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(given, device, 0))
    bound.bind_output("out", "cpu")
    return 2 * side**3 / seconds(lambda: session.run_with_iobinding(bound), 3)


def flops_an_image(model: Path) -> float:
    """Count two for each multiplication of the model's convolutions and matrix products, for one image."""
    inferred = shape_inference.infer_shapes(onnx.load(model))
    shapes = {
        info.name: [axis.dim_value or 1 for axis in info.type.tensor_type.shape.dim]
        for info in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
    total = 0.0
    for node in inferred.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.output[0] in shapes:
            weight = shapes[node.input[1]]
            each = np.prod(weight[1:]) if node.op_type == "Conv" else shapes[node.input[0]][-1]
            total += 2.0 * float(np.prod(shapes[node.output[0]])) * float(each)
    return total


def seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the median duration of a call, after one that does not count."""
    call()
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        took.append(time.perf_counter() - started)
    return float(np.median(took))


if __name__ == "__main__":
    main()
