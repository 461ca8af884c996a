"""Who works on the shards: processes of this machine, or Ray's workers on many."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, Literal

from service.bulk.job import Job
from service.bulk.shard import embed_shard
from service.bulk.table import Marker
from service.errors import AerofixError, ConfigurationInvalid, EmbeddingError

Engine = Literal["local", "ray"]
OnShard = Callable[[Marker], object]

MAX_DEATHS = 3
"""When processes have died so many times while no shard became whole, it is the work that kills them."""


def embed_all(job: Job, workers: int, engine: Engine, on_shard: OnShard) -> None:
    """Make all shards of a job that are not whole yet.

    Args:
        job: what there is to do.
        workers: processes at a time.
        engine: who they are.
        on_shard: told of every shard that is whole.

    Raises:
        AerofixError: a shard cannot be made, and the others are stopped; those that are whole stay.
    """
    {"local": _locally, "ray": _with_ray}[engine](job, workers, on_shard)


def _locally(job: Job, workers: int, on_shard: OnShard) -> None:
    """Processes that are replaced when they die: killed by hand, or for want of memory."""
    left, deaths = set(range(job.shards)), 0
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    while left:
        with ProcessPoolExecutor(workers, context, _listen_to, (stop,)) as pool:
            try:
                waiting = {_submit(pool, job, shard): shard for shard in sorted(left)}
                for future in as_completed(waiting):
                    on_shard(future.result())
                    left.discard(waiting[future])
                    deaths = 0
            except BrokenProcessPool as error:
                # one that the pool was just starting is not ended by it, and would be waited for without end
                for process in multiprocessing.active_children():
                    process.kill()
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise EmbeddingError(
                        f"processes died {MAX_DEATHS} times while no shard became whole; the log of the system says "
                        "whether memory ran out. Try fewer --workers, or a larger --of."
                    ) from error
            except BaseException:  # of a shard, or Ctrl-C: what is under way ends with the piece in hand
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def _submit(pool: ProcessPoolExecutor, job: Job, shard: int) -> Future[Marker]:
    """Ask for a shard; a pool that breaks while it starts a process for it fails in a way of its own."""
    try:
        return pool.submit(_shard_here, job, shard)
    except OSError as error:
        raise BrokenProcessPool(f"no process could be started: {error}") from error


class _Stopped(AerofixError):
    """Another shard cannot be made, or the command was interrupted."""


_stop: Event
"""This is set when the processes of the pool are to end; the pool hands it over when they start."""


def _listen_to(stop: Event) -> None:
    """Prepare a process of the pool: Ctrl-C reaches it too, but who started it decides."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _shard_here(job: Job, shard: int) -> Marker:
    """What a process of the pool does with a shard's number."""
    _go_on()
    return embed_shard(job, shard, lambda places: _go_on())


def _go_on() -> None:
    if _stop.is_set():
        raise _Stopped("stopped")


def _with_ray(job: Job, workers: int, on_shard: OnShard) -> None:
    """Ray Data hands shard numbers to its workers; they need the source, the model and the folder at the same paths."""
    try:
        import ray
    except ImportError as error:
        raise ConfigurationInvalid("Ray is not installed: pip install 'aerofix[cpu,ray]'.") from error
    numbers = ray.data.range(job.shards, override_num_blocks=job.shards)
    made = numbers.map(partial(_shard_of, job=job), concurrency=workers)
    for row in _rows(made):
        marker = Marker.of(job.path(row["id"]))
        if marker is not None:
            on_shard(marker)


def _shard_of(row: dict[str, Any], job: Job) -> dict[str, Any]:
    """What a worker of Ray does with a shard's number."""
    embed_shard(job, int(row["id"]))
    return row


def _rows(dataset: Any) -> Iterable[dict[str, Any]]:
    rows: Iterable[dict[str, Any]] = dataset.iter_rows()
    return rows
