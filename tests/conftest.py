"""Fixtures that several test folders use: a tiny model that keeps the contract, and images of made-up ground."""

import hashlib
import io
import json
import logging
import os
import sys
import threading

# Tiny arrays gain nothing from threads, which would only spin beside those of another worker.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, settings
from milvus_servers import lite
from onnx import TensorProto, helper, numpy_helper, save
from PIL import Image

# A slow machine is no failure: tests contain no timing.
settings.register_profile("aerofix", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aerofix")

SIDE, DIM = 32, 32

CALIBRATION = {
    "version": 1,
    "place": {"bias": -8.0, "score": 8.0, "margin": 10.0},
    "in_gallery": {"bias": -7.0, "score": 9.0, "margin": 2.0},
    "rival_floor": 0.2,
    "sigma_tiles": 0.2,
    "located_min_confidence": 0.75,
    "not_found_below": 0.5,
    "refine_temperature": 0.05,
}


def independent_weights_sha256(initializers) -> str:
    """The documented hash, written a second time."""
    digest = hashlib.sha256()
    for tensor in sorted(initializers, key=lambda t: t.name):
        digest.update(tensor.name.encode("utf-8") + b"\0" + numpy_helper.to_array(tensor).tobytes())
    return digest.hexdigest()


def build_tiny_model(
    seed=0,
    opset=18,
    local=False,
    local_op="LpNormalization",
    input_type=TensorProto.UINT8,
    input_shape=None,
    output_shape=None,
    input_name="image",
    output_name="embedding",
    normalise=True,
    mix_batch=False,
    metadata=None,
):
    """A model that keeps the contract, unless an argument makes it break one clause.

    The 8×8 mean colours of the image, centred, times a fixed random matrix, scaled to unit length: close images are
    close, others are not. ``metadata`` overrides single keys; None removes one.
    """
    rng = np.random.default_rng(seed)
    initializers = [
        numpy_helper.from_array(rng.normal(size=(192, DIM)).astype(np.float32), "projection"),
        numpy_helper.from_array((rng.normal(size=DIM) * 1e-3).astype(np.float32), "bias"),
        numpy_helper.from_array(np.array(255.0, np.float32), "white"),
        numpy_helper.from_array(np.array(0.5, np.float32), "grey"),
        numpy_helper.from_array(np.array([1], np.int64), "feature_axis"),
        numpy_helper.from_array(np.array([0], np.int64), "batch_axis"),
    ]
    last = "biased"
    nodes = [
        helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "white"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["chw"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("ReduceMean", ["flat", "feature_axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["flat", "mean"], ["centred"]),
        helper.make_node("MatMul", ["centred", "projection"], ["projected"]),
        helper.make_node("Add", ["projected", "bias"], ["biased"]),
    ]
    if mix_batch:
        nodes.append(helper.make_node("ReduceMean", ["biased", "batch_axis"], ["batch_mean"], keepdims=1))
        nodes.append(helper.make_node("Add", ["biased", "batch_mean"], ["mixed"]))
        last = "mixed"
    final = ("LpNormalization", {"axis": 1, "p": 2}) if normalise else ("Identity", {})
    nodes.append(helper.make_node(final[0], [last], [output_name], **final[1]))
    outputs = [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, output_shape or ["N", DIM])]
    if local:
        options = {"axis": 1, "p": 2} if local_op == "LpNormalization" else {}
        nodes.append(helper.make_node("Sub", ["pooled", "grey"], ["hues"]))
        nodes.append(helper.make_node(local_op, ["hues"], ["local"], **options))
        outputs.append(helper.make_tensor_value_info("local", TensorProto.FLOAT, ["N", 3, 8, 8]))
    image = helper.make_tensor_value_info(input_name, input_type, input_shape or ["N", SIDE, SIDE, 3])
    graph = helper.make_graph(nodes, "tiny", [image], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    values = {
        "contract": "1",
        "model_id": f"tiny-{seed}",
        "method": "none",
        "backbone": "mean-colours",
        "image_size": str(SIDE),
        "resize": "center_crop",
        "embedding_dim": str(DIM),
        "local_shape": "[3, 8, 8]" if local else "",
        "weights_sha256": independent_weights_sha256(initializers),
        "training_config": "{}",
        "calibration": json.dumps(CALIBRATION),
        "license": "Apache-2.0",
        "gsd_range_m": "[0.1, 1.0]",
    } | (metadata or {})
    helper.set_model_props(model, {f"aerofix.{key}": value for key, value in values.items() if value is not None})
    return model


@pytest.fixture(scope="session")
def tiny_model():
    """``tiny_model(path, **overrides)`` writes a tiny model file and returns its path."""

    def make(path, **overrides):
        save(build_tiny_model(**overrides), str(path))
        return path

    return make


@pytest.fixture(scope="session")
def calibration_json():
    return json.loads(json.dumps(CALIBRATION))


@pytest.fixture(scope="session")
def ground():
    """``ground(seed, width, height)`` paints an RGB image of soft coloured patches, unlike any other seed's."""

    def paint(seed=0, width=64, height=64):
        coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return paint


@pytest.fixture(scope="session")
def encode_image():
    """``encode_image(image, format, **options)`` gives the bytes of an image file."""

    def encode(image, format="PNG", **options):
        out = io.BytesIO()
        image.save(out, format, **options)
        return out.getvalue()

    return encode


ZOOM, LEFT, TOP = 16, 16 * 875_000, 16 * 448_000  # a place in Taiwan, on the lattice of the tiny model's windows


@pytest.fixture(scope="session")
def write_map():
    """``write_map(path, image, **profile)``: a GeoTIFF whose pixels are those of Web Mercator's zoom 16.

    Each window of the tiny model at that zoom is a square of 32 of its pixels, at multiples of 16.
    """

    def write(path, image, left=LEFT, top=TOP, **profile):
        side_m = 40_075_016.685578488
        pixel_m = side_m / (256 * 2**ZOOM)
        west, north = left * pixel_m - side_m / 2, side_m / 2 - top * pixel_m
        bands = np.asarray(image).transpose(2, 0, 1)
        usual = {"driver": "GTiff", "count": len(bands), "dtype": "uint8", "crs": "EPSG:3857"}
        usual |= {"width": bands.shape[2], "height": bands.shape[1]}
        usual["transform"] = rasterio.Affine(pixel_m, 0, west, 0, -pixel_m, north)
        with rasterio.open(path, "w", **usual | profile) as out:
            out.write(bands)
        return path

    return write


@pytest.fixture(scope="session")
def write_video():
    """``write_video(path, images, rate)``: a video of these pictures, ``rate`` of them a second."""
    av = pytest.importorskip("av")

    def write(path, images, rate=10):
        with av.open(str(path), "w") as out:
            stream = out.add_stream("mpeg4", rate=rate)
            stream.width, stream.height = images[0].size
            stream.pix_fmt, stream.bit_rate = "yuv420p", 8_000_000
            for image in images:
                out.mux(stream.encode(av.VideoFrame.from_image(image)))
            out.mux(stream.encode())
        return path

    return write


def _damage(rng, data, other):
    """Change a file in one of the ways in which files go wrong, or are made to."""
    data = bytearray(data)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    match int(rng.integers(8)):
        case 0:  # bits fall over
            for i in rng.integers(len(data), size=int(rng.integers(1, 20))):
                data[i] ^= 1 << int(rng.integers(8))
        case 1:  # the end is missing
            del data[at:]
        case 2:  # a piece is missing
            del data[at : at + length]
        case 3:  # a piece comes twice
            data[at:at] = data[at : at + length]
        case 4:  # noise in between
            data[at:at] = rng.bytes(length)
        case 5:  # a number near the start is as large as it can be
            data[at % 64 : at % 64 + 4] = b"\xff\xff\xff\xff"
        case 6:  # half of this, half of something else
            data[at:] = other[int(rng.integers(len(other))) :]
        case 7:  # all zero from here
            data[at:] = bytes(len(data) - at)
    return bytes(data)


@pytest.fixture(scope="session")
def damage():
    """``damage(rng, data, other)`` gives a file that went wrong; ``other`` is what it may be mixed up with."""
    return _damage


@pytest.fixture(scope="session")
def image_files(ground, encode_image):
    """Small sound files of every kind that the service reads."""
    image = ground(1, 48, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = [
        ("JPEG", {"quality": 80}),
        ("JPEG", {"progressive": True, "exif": exif}),
        ("PNG", {}),
        ("PNG", {"exif": exif}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 50}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
    ]
    files = [encode_image(image, kind, **chosen) for kind, chosen in options]
    return [*files, encode_image(image.convert("P"), "PNG"), encode_image(image.convert("L"), "TIFF")]


@pytest.fixture(scope="session")
def milvus_lite(tmp_path_factory):
    """The address of a Milvus for tests, on the loopback interface."""
    with lite(tmp_path_factory.mktemp("milvus")) as (_, uri):
        yield uri


@pytest.fixture(autouse=True)
def logging_left_as_found():
    """Undo what a command under test did to the process's logging: its handlers write to that test's stderr."""
    root, access = logging.getLogger(), logging.getLogger("uvicorn.access")
    handlers, level, disabled = root.handlers[:], root.level, access.disabled
    hooks = threading.excepthook, sys.unraisablehook
    yield
    logging.captureWarnings(False)
    threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:], access.disabled = handlers, disabled
    root.setLevel(level)
