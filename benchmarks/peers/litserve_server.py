"""The same work behind LitServe: ``python litserve_server.py GALLERY MODEL DECODERS PORT``.

One worker, batches of what waits and as large as ours; DECODERS threads decode a batch.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import litserve
from fastapi import File

sys.path.insert(0, str(Path(__file__).parents[1]))

MAX_BATCH, BATCH_TIMEOUT_S = 2 * (os.cpu_count() or 1), 0.0


class Localize(litserve.LitAPI):
    """Photos in, places out."""

    def setup(self, device: str) -> None:
        """Load model and gallery in the worker's process."""
        from bare import Bare

        gallery, model, decoders, _ = sys.argv[1:]
        self.bare = Bare(Path(gallery), Path(model))
        self.pool = ThreadPoolExecutor(int(decoders))

    def decode_request(self, request: Annotated[bytes, File(alias="image")]) -> bytes:
        """Return the file's bytes."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """Leave it: a list is what we take."""
        return inputs

    def predict(self, batch: list[bytes]) -> list[dict]:
        """Answer a batch."""
        from places import place

        return [place(answer) for answer in self.bare.localize(batch, self.pool)]

    def unbatch(self, output: list[dict]) -> list[dict]:
        """Leave it: a list is what we give."""
        return output


if __name__ == "__main__":
    api = Localize(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[4]), generate_client_file=False, log_level="warning")
