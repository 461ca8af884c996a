"""What the contract tests do not see: where a search runs, copies and swaps, and what a machine lacks."""

import gc
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.errors import DeviceUnavailable
from service.geo import Circle
from service.ground.index.exact import FaissIndex
from service.ground.index.gpu import FaissGpuIndex, make_index
from service.ground.index.tiered import TieredIndex

DIM = 8
LONG = 60  # seconds; no test waits that long


def unit(seed, count):
    vectors = np.random.default_rng(seed).normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stored(seed, count):
    return unit(seed, count).astype(np.float16)


class Device:
    """Stands for a GPU: counts searches, and makes copies when the gate is open."""

    def __init__(self):
        self.searches, self.copies = [], 0
        self.gate = threading.Event()
        self.gate.set()
        self.full = self.lost = False
        self.hangs = threading.Event()
        self.hangs.set()

    def copy(self, flat):
        assert self.gate.wait(LONG)
        if self.full:
            raise RuntimeError("Error in StandardGpuResourcesImpl: cudaMalloc error out of memory")
        self.copies += 1
        device = self

        class Copied:
            def search(self, queries, k):
                device.searches.append((len(queries), k))
                assert device.hangs.wait(LONG)
                if device.lost:
                    raise RuntimeError("CUDA error 700 an illegal memory access was encountered")
                return flat.search(queries, k)

        return Copied()


@pytest.fixture
def device():
    fake = Device()
    yield fake
    fake.gate.set()
    fake.hangs.set()


@pytest.fixture
def index(device):
    return FaissGpuIndex(DIM, to_gpu=device.copy, rebuild_at=10)


def settled(index):
    end = time.monotonic() + LONG
    while index.describe()["rebuilding"]:
        assert time.monotonic() < end
        time.sleep(0.001)
    return index.describe()


def fill(index, ids):
    ids = np.asarray(ids)
    index.upsert(ids, stored(7, 1000)[ids], np.zeros((len(ids), 2)))


def test_the_first_copy_is_made_in_the_background_and_then_searched(index, device):
    device.gate.clear()
    fill(index, range(50))
    assert index.search(unit(7, 1), 1)[1].tolist() == [[0]]
    assert device.searches == []
    assert (index.describe()["device"], index.describe()["gpu"]) == ("cpu", "cuda:0")
    device.gate.set()
    state = settled(index)
    assert (state["copied"], state["changed"], state["size"], state["device"]) == (50, 0, 50, "cuda:0")
    assert index.search(unit(7, 1), 3)[1][0, 0] == 0
    assert device.searches == [(1, 3 + 16)]


def test_few_changes_are_tombstones_and_more_make_a_new_copy(index, device):
    fill(index, range(50))
    settled(index)
    index.delete(np.arange(5))
    fill(index, [60, 61])
    assert index.describe() | {"size": 47, "copied": 50, "changed": 7} == index.describe()
    _, ids = index.search(unit(7, 1), 47)
    assert set(ids[0].tolist()) == {*range(5, 50), 60, 61}
    assert len(device.searches) == 1
    fill(index, range(70, 80))
    assert settled(index) | {"size": 57, "copied": 57, "changed": 0} == index.describe()
    assert device.copies == 2


def test_what_changes_while_a_copy_is_made_is_not_lost(index, device):
    fill(index, range(50))
    settled(index)
    device.gate.clear()
    fill(index, range(100, 120))
    index.delete(np.array([110, 3]))
    fill(index, [3, 200])
    device.gate.set()
    settled(index)
    _, ids = index.search(unit(7, 1), 80)
    assert set(ids[0].tolist()) - {-1} == {*range(50), *range(100, 120), 200} - {110}


def test_areas_are_searched_on_the_cpu(index, device):
    fill(index, range(50))
    settled(index)
    _, ids = index.search(unit(7, 1), 2, Circle(0, 0, 10))
    assert ids[0, 0] == 0
    assert device.searches == []


def test_a_search_in_an_area_waits_for_no_gpu(index, device, monkeypatch):
    monkeypatch.setattr("service.ground.index.gpu.SEARCH_TIMEOUT_S", LONG)
    fill(index, np.arange(30))
    settled(index)
    device.hangs.clear()
    slow = threading.Thread(target=index.search, args=(unit(1, 1), 3))
    slow.start()
    try:
        while not device.searches:
            time.sleep(0.001)
        with ThreadPoolExecutor(1) as other:
            _, ids = other.submit(index.search, unit(1, 1), 3, Circle(0, 0, 1e7)).result(LONG / 2)
        assert slow.is_alive()
        assert ids.shape == (1, 3)
    finally:
        device.hangs.set()
        slow.join(LONG)


def test_a_query_for_more_than_a_gpu_selects_goes_to_the_cpu(index, device):
    fill(index, range(50))
    settled(index)
    many = np.concatenate([np.arange(1000)] * 3)
    index.upsert(np.arange(3000), stored(7, 1000)[many], np.zeros((3000, 2)))
    settled(index)
    _, ids = index.search(unit(7, 1), 2500)
    assert len(set(ids[0].tolist())) == 2500
    assert index.describe()["device"] == "cuda:0"  # where searches of a usual size run
    assert device.searches == []


def test_a_full_gpu_leaves_the_cpu_to_answer(index, device, caplog):
    device.full = True
    fill(index, range(50))
    assert settled(index)["copied"] == 0
    assert index.describe()["device"] == "cpu"
    assert "does not fit on GPU 0" in caplog.text
    assert index.search(unit(7, 1), 1)[1].tolist() == [[0]]
    device.full = False
    fill(index, range(50, 200))
    assert settled(index)["copied"] == 200


def same(found, expected):
    return all(np.array_equal(left, right) for left, right in zip(found, expected, strict=True))


@pytest.mark.parametrize("way", ["it raises", "it hangs"])
def test_a_gpu_that_fails_in_a_search_leaves_the_cpu_to_answer(index, device, monkeypatch, caplog, way):
    fill(index, range(50))
    settled(index)
    fill(index, [60])
    expected, queries = FaissIndex(DIM), unit(8, 3)
    fill(expected, [*range(50), 60])
    assert same(index.search(queries, 5), expected.search(queries, 5))
    if way == "it raises":
        device.lost = True
    else:
        monkeypatch.setattr("service.ground.index.gpu.SEARCH_TIMEOUT_S", 0.01)
        device.hangs.clear()
    for _ in range(3):
        assert same(index.search(queries, 5), expected.search(queries, 5))
    assert len(device.searches) == 2  # one that worked and one that did not
    assert "GPU 0 failed in a search" in caplog.text
    assert index.describe() | {"device": "cpu", "copied": 0, "changed": 51} == index.describe()
    index.delete(np.array([3]))  # what is written is found, and is no reason to try again at once
    expected.delete(np.array([3]))
    assert same(index.search(queries, 5), expected.search(queries, 5))
    assert (device.copies, index.describe()["rebuilding"]) == (1, False)

    device.lost = False
    monkeypatch.setattr("service.ground.index.gpu.SEARCH_TIMEOUT_S", LONG)
    fill(index, range(100, 200))  # while the other search may still hang
    fill(expected, range(100, 200))
    assert settled(index) | {"device": "cuda:0", "changed": 0} == index.describe()
    device.hangs.set()
    assert same(index.search(queries, 5), expected.search(queries, 5))
    assert len(device.searches) == 3
    fill(index, range(200, 220))  # and copies are made as often as before
    assert settled(index)["changed"] == 0


def test_a_copy_that_cannot_be_prepared_is_not_waited_for(index, device, monkeypatch, caplog):
    def no_memory(self):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(FaissIndex, "snapshot", no_memory)
        fill(index, range(50))
        assert settled(index)["copied"] == 0
    assert "MemoryError" in caplog.text
    fill(index, range(50, 200))
    assert settled(index)["copied"] == 200


def test_a_hanging_search_does_not_keep_the_process_from_ending():
    program = """
import threading, time, numpy as np
from service.ground.index import gpu as faiss_gpu_index
faiss_gpu_index.SEARCH_TIMEOUT_S = 0.01
class Hanging:
    def __init__(self, flat): pass
    def search(self, queries, k): threading.Event().wait()
index = faiss_gpu_index.FaissGpuIndex(2, to_gpu=Hanging, rebuild_at=0)
index.upsert(np.array([4]), np.array([[1, 0]], np.float16), np.zeros((1, 2)))
while not index.describe()["copied"]: time.sleep(0.001)
print(index.search(np.array([[1, 0]], np.float32), 1)[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, done.stdout.strip()) == (0, "[[4]]")


def test_an_index_that_is_gone_leaves_no_thread():
    before = set(threading.enumerate())
    index = FaissGpuIndex(DIM, to_gpu=Device().copy)
    (searcher,) = set(threading.enumerate()) - before
    del index
    gc.collect()
    searcher.join(LONG)
    assert not searcher.is_alive()


class FakeFaiss(types.ModuleType):
    """The real module, with a GPU build's names added."""

    def __init__(self, gpus):
        super().__init__("faiss")
        import faiss

        self._real, self._gpus = faiss, gpus

    def __getattr__(self, name):
        return getattr(self._real, name)

    def get_num_gpus(self):
        if isinstance(self._gpus, Exception):
            raise self._gpus
        return self._gpus

    class StandardGpuResources:
        def setTempMemory(self, size):  # noqa: N802 - FAISS's name
            self.size = size

    def index_cpu_to_gpu(self, resources, gpu, flat):
        assert 0 < resources.size < 2**30
        self.used = gpu
        return flat


def test_auto_takes_a_gpu_that_works(monkeypatch):
    fake = FakeFaiss(2)
    monkeypatch.setitem(sys.modules, "faiss", fake)
    assert make_index(DIM, "auto:1").describe()["gpu"] == "cuda:1"
    assert fake.used == 1
    assert isinstance(make_index(DIM, "cpu"), TieredIndex)


def test_a_cpu_build_names_the_package():
    assert isinstance(make_index(DIM, "auto"), TieredIndex)
    with pytest.raises(DeviceUnavailable, match=r"pip uninstall faiss-cpu`, then `pip install 'aerofix\[gpu\]'"):
        make_index(DIM, "cuda")


@pytest.mark.parametrize(("gpus", "reason"), [(0, "FAISS sees 0 GPUs"), (RuntimeError("CUDA error 35"), "error 35")])
def test_a_gpu_that_does_not_work_names_the_driver(monkeypatch, gpus, reason):
    monkeypatch.setitem(sys.modules, "faiss", FakeFaiss(gpus))
    assert isinstance(make_index(DIM, "auto:0"), TieredIndex)
    with pytest.raises(DeviceUnavailable, match=reason) as caught:
        make_index(DIM, "cuda:0")
    assert "nvidia-smi" in caught.value.detail
