"""A real Ray cluster of two workers makes the shards that processes make."""

import os

import pytest

pytest.importorskip("pyarrow")

from service.bulk.engines import embed_all
from service.bulk.job import Job
from service.bulk.shard import embed_shard
from service.bulk.table import pieces_in
from service.importing.options import MapOptions
from service.settings import Settings

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore")]  # Ray's own


def test_ray_makes_the_same_shards(tmp_path, tiny_model, ground, write_map):
    ray = pytest.importorskip("ray")  # here: it changes how all records of logs are made
    model = tiny_model(tmp_path / "m.onnx", local=True)
    source = write_map(tmp_path / "area.tif", ground(4, 512, 512))
    jobs = [
        Job(source, tmp_path / name, 4, MapOptions(), Settings(model=model, device="cpu", threads=1))
        for name in ("ray", "alone")
    ]
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    try:
        made = []
        embed_all(jobs[0], 2, "ray", made.append)
    finally:
        ray.shutdown()
    assert sorted(marker.shard for marker in made) == [0, 1, 2, 3]
    for marker in made:
        alone = embed_shard(jobs[1], marker.shard)
        ours, theirs = (
            list(pieces_in(job.path(marker.shard), each)) for job, each in zip(jobs, (marker, alone), strict=True)
        )
        assert ours == theirs
