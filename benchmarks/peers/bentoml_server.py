"""The same work behind BentoML: ``GALLERY=… MODEL=… DECODERS=… bentoml serve bentoml_server:Localize``.

One worker, adaptive batches as large as ours; DECODERS threads decode a batch. The access log is off: it is long.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bentoml

sys.path.insert(0, str(Path(__file__).parents[1]))

MAX_BATCH, MAX_LATENCY_MS = 2 * (os.cpu_count() or 1), 10_000


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 128}, logging={"access": {"enabled": False}})
class Localize:
    """Photos in, places out."""

    def __init__(self) -> None:
        from bare import Bare

        self.bare = Bare(Path(os.environ["GALLERY"]), Path(os.environ["MODEL"]))
        self.pool = ThreadPoolExecutor(int(os.environ["DECODERS"]))

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)
    def localize(self, image: list[Path]) -> list[dict[str, Any]]:
        """Answer a batch."""
        from places import place

        photos = [path.read_bytes() for path in image]
        return [place(answer) for answer in self.bare.localize(photos, self.pool)]
