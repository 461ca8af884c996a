import itertools
import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

from service.encoder.preprocess import preprocess
from service.encoder.session import Encoder, Features, cuda_options
from service.errors import ContractBroken, DeviceUnavailable
from service.settings import Settings


@pytest.fixture
def path(tmp_path, tiny_model):
    return tiny_model(tmp_path / "m.onnx")


def reference(path, images):
    """The tiny graph in numpy."""
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(str(path)).graph.initializer}
    pooled = (images / 255).reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2).reshape(len(images), -1)
    raw = (pooled - pooled.mean(axis=1, keepdims=True)) @ weights["projection"] + weights["bias"]
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def test_embeddings_are_those_of_the_graph(path):
    images = np.random.default_rng(5).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    features = Encoder(path, "cpu").encode(images)
    embeddings = features.embedding
    assert features.local is None
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, reference(path, images), atol=1e-5)


def test_a_cpu_takes_two_images_for_each_core_and_a_gpu_all(path, monkeypatch):
    encoder = Encoder(path, "cpu", threads=3)
    assert encoder.useful_batch(16) == 6
    assert encoder.useful_batch(4) == 4
    monkeypatch.setattr(encoder, "provider", "CUDAExecutionProvider")
    assert encoder.useful_batch(16) == 16


def test_local_descriptors_are_those_of_the_graph(tmp_path, tiny_model):
    images = np.random.default_rng(5).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    path = tiny_model(tmp_path / "m.onnx", local=True)
    features = Encoder(path, "cpu").encode(images)
    pooled = (images / 255).reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).transpose(0, 3, 1, 2) - 0.5
    np.testing.assert_allclose(features.embedding, reference(path, images), atol=1e-5)
    np.testing.assert_allclose(features.local, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), atol=1e-5)


def test_turned_images_are_described_as_if_they_had_been_turned_before(tmp_path, tiny_model, calibration_json):
    images = np.random.default_rng(6).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    section = {"min_inliers": 9, "inlier_weight": 0.1, "turns": 4}
    calibration = {"calibration": json.dumps(calibration_json | {"local": section})}
    encoder = Encoder(tiny_model(tmp_path / "m.onnx", local=True, metadata=calibration), "cpu")
    turned = encoder.describe_turned(images)
    assert turned.shape == (3, 3, 3, 8, 8)
    np.testing.assert_allclose(encoder.describe(images), encoder.encode(images).local, atol=1e-5)
    for i, k in itertools.product(range(3), (1, 2, 3)):
        expected = encoder.encode(np.rot90(images[i], k)[None].copy()).local[0]
        np.testing.assert_allclose(turned[i, k - 1], expected, atol=1e-5)
    for local, metadata in ((True, None), (False, calibration)):  # no turns are asked for; there is nothing to turn
        plain = Encoder(tiny_model(tmp_path / f"{local}.onnx", local=local, metadata=metadata), "cpu")
        with pytest.raises(ValueError, match="any turn"):
            plain.describe_turned(images)
        if local:
            np.testing.assert_array_equal(plain.describe(images), plain.encode(images).local)


def test_the_canary_agrees_until_the_numbers_change(path, monkeypatch):
    encoder = Encoder(path, "cpu", threads=1)
    assert encoder.canary_agrees()

    def wrong(images):
        return Features(np.roll(Encoder.encode(encoder, images).embedding, 1, axis=1))

    monkeypatch.setattr(encoder, "encode", wrong)
    assert not encoder.canary_agrees()


@pytest.mark.parametrize(
    ("overrides", "clause"),
    [
        ({"normalise": False}, "`embedding` must have unit norm"),
        ({"mix_batch": True}, "must not depend on the other images of its batch"),
        ({"local": True, "local_op": "Identity"}, "`local` must have unit norm"),
        ({"local": True, "local_op": "Log"}, "`local` must be finite"),
    ],
)
def test_numeric_clauses(tmp_path, tiny_model, overrides, clause):
    with pytest.raises(ContractBroken, match=re.escape(clause)):
        Encoder(tiny_model(tmp_path / "m.onnx", **overrides), "cpu")


def with_an_unknown_operator(path):
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, str(path))
    return path


def test_a_graph_that_onnxruntime_refuses(tmp_path, tiny_model):
    path = with_an_unknown_operator(tiny_model(tmp_path / "m.onnx"))
    with pytest.raises(ContractBroken, match="onnxruntime cannot load it"):
        Encoder(path, "cpu")


def test_cuda_that_is_not_offered_names_the_fix(path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailable, match=re.escape("pip install aerofix[gpu]")):
        Encoder(path, "cuda")
    assert Encoder(path, "auto").provider == "CPUExecutionProvider"


BOTH = ["CUDAExecutionProvider", "CPUExecutionProvider"]
TURNS = {"min_inliers": 9, "inlier_weight": 0.1, "turns": 4}


class Cuda(onnxruntime.InferenceSession):
    """A session that says it runs on CUDA, and runs on the CPU; what onnxruntime does about errors is its own."""

    def _create_inference_session(self, providers, provider_options, disabled_optimizers=None):
        self.asked.append(providers)
        super()._create_inference_session(["CPUExecutionProvider"], None)
        if providers[0] != "CPUExecutionProvider" and providers[0][0] == "CUDAExecutionProvider":
            self._providers = BOTH
            self.use_cuda()

    def use_cuda(self):
        """What happens on CUDA only."""


class Refusing(Cuda):
    """The provider cannot be made: the GPU is gone, or full."""

    def use_cuda(self):
        raise RuntimeError("CUDA failure 46: all CUDA-capable devices are busy or unavailable")


class FallenBack(Cuda):
    """A GPU build without a working GPU offers CUDA, and runs on the CPU without an error."""

    def use_cuda(self):
        self._providers = BOTH[1:]


class Failing(Cuda):
    """It can be made, and fails when it runs, as where cuDNN does not fit the driver."""

    fails = staticmethod(lambda inputs: True)

    def use_cuda(self):
        real, fails = self._sess, self.fails

        class Inner:
            def __getattr__(self, name):
                return getattr(real, name)

            def run(self, outputs, inputs, options=None):
                if fails(outputs):
                    raise EPFail("CUDNN_STATUS_EXECUTION_FAILED")
                return real.run(outputs, inputs, options)

        self._sess = Inner()


class Nonsense(Cuda):
    """A GPU that is broken."""

    def use_cuda(self):
        real = self._sess

        class Inner:
            def __getattr__(self, name):
                return getattr(real, name)

            def run(self, outputs, inputs, options=None):
                return [np.full_like(output, np.nan) for output in real.run(outputs, inputs, options)]

        self._sess = Inner()


class FailingToDescribe(Failing):
    """The session of the turned copies fails when it runs."""

    fails = staticmethod(lambda outputs: outputs == ["local"])


class HalfFallenBack(Cuda):
    """The session of the turned copies, the one that comes as bytes, ends up on the CPU."""

    def use_cuda(self):
        if self._model_bytes is not None:
            self._providers = BOTH[1:]


@pytest.fixture
def cuda(monkeypatch):
    """``cuda(Session)``: this is what onnxruntime offers."""

    def offer(session):
        session.asked = []
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: BOTH)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda directory: None)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return session

    return offer


@pytest.fixture
def turning(tmp_path, tiny_model, calibration_json):
    """A model of two sessions."""
    metadata = {"calibration": json.dumps(calibration_json | {"local": TURNS})}
    return tiny_model(tmp_path / "turning.onnx", local=True, metadata=metadata)


def test_cuda_gets_its_options_and_the_cpu_none(path, cuda):
    session = cuda(Cuda)
    assert Encoder(path, "cuda", cuda_device=2, cuda_memory_bytes=10**9).provider == BOTH[0]
    assert session.asked == [[(BOTH[0], cuda_options(2, 10**9))]]
    assert cuda_options(2, 10**9)["gpu_mem_limit"] == "1000000000"
    assert "gpu_mem_limit" not in cuda_options(0, 0)
    Encoder(path, "cpu")
    assert session.asked[1:] == [[(BOTH[1], {})]]


def test_two_sessions_share_the_memory(turning, cuda):
    session = cuda(Cuda)
    Encoder(turning, "cuda", cuda_memory_bytes=10**9)
    assert session.asked == 2 * [[(BOTH[0], cuda_options(0, 5 * 10**8))]]


def test_numbers_on_cuda_are_those_that_the_calibration_was_fitted_on():
    assert cuda_options(0, 0)["use_tf32"] == "0"


def test_cuda_libraries_are_loaded_and_what_is_missing_is_logged(path, cuda, monkeypatch, caplog, capsys):
    def preload(directory):
        assert directory == ""
        print("Failed to load libcudnn.so.9")

    cuda(FallenBack)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    with pytest.raises(DeviceUnavailable, match="nvidia-smi"):
        Encoder(path, "cuda")
    assert "libcudnn.so.9" in caplog.text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (FallenBack, "gave CPUExecutionProvider instead of CUDAExecutionProvider"),
        (HalfFallenBack, "gave CPUExecutionProvider instead of CUDAExecutionProvider"),
        (Refusing, "devices are busy or unavailable"),
        (Failing, "CUDNN_STATUS_EXECUTION_FAILED"),
        (FailingToDescribe, "CUDNN_STATUS_EXECUTION_FAILED"),
        (Nonsense, "breaks its contract there: `embedding` must be finite"),
    ],
)
def test_cuda_that_does_not_work_is_an_error_unless_auto(turning, cuda, session, reason, caplog, capsys):
    cuda(session)
    with pytest.raises(DeviceUnavailable, match=reason) as caught:
        Encoder(turning, "cuda")
    assert "nvidia-smi" in caught.value.detail
    encoder = Encoder(turning, "auto")
    assert encoder.provider == "CPUExecutionProvider"
    assert encoder.canary_agrees()
    assert reason in caplog.text
    assert capsys.readouterr().out == ""  # where onnxruntime says that it falls back, beside a user's JSON


@pytest.mark.parametrize("session", [Failing, FailingToDescribe])
def test_cuda_that_is_lost_while_serving_is_not_replaced_in_silence(turning, cuda, session, monkeypatch):
    lost = False
    fails = session.fails
    monkeypatch.setattr(session, "fails", staticmethod(lambda outputs: lost and fails(outputs)))
    cuda(session)
    encoder = Encoder(turning, "cuda")
    assert encoder.canary_agrees()
    lost = True
    for _ in range(2):
        with pytest.raises(EPFail):
            encoder.canary_agrees()


def test_a_model_that_no_device_runs_is_the_models_fault(tmp_path, tiny_model, cuda):
    cuda(Failing)
    path = with_an_unknown_operator(tiny_model(tmp_path / "m.onnx"))
    with pytest.raises(ContractBroken, match="onnxruntime cannot load it"):
        Encoder(path, "auto")


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
def test_preprocess_follows_the_contract(tmp_path, tiny_model, ground, resize):
    contract = Encoder(tiny_model(tmp_path / "m.onnx", metadata={"resize": resize}), "cpu").contract
    image = ground(1, 200, 100)
    expected = image if resize == "squash" else image.crop((50, 0, 150, 100))
    result = preprocess(np.asarray(image), contract)
    np.testing.assert_array_equal(result, np.asarray(expected.resize((32, 32), 3)))  # 3 is BICUBIC
    assert result.dtype == np.uint8


def test_all_settings_of_the_device_reach_the_session(monkeypatch, tiny_model, tmp_path):
    seen = []
    monkeypatch.setattr(Encoder, "__init__", lambda self, *arguments: seen.append(arguments))
    path = tmp_path / "m.onnx"
    Encoder.of(Settings(model=path, device="cuda", threads=3, cuda_device=2, cuda_memory_bytes=7))
    assert seen == [(path, "cuda", 3, 2, 7)]
