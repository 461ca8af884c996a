"""What is to be embedded, and how it falls into shards."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from service.bulk.fingerprint import fingerprint
from service.encoder.contract import ModelContract
from service.errors import InvalidParameter
from service.ground.maps import NewMap, check_map_name
from service.ground.windows import Lattice
from service.importing.jobs import plain
from service.importing.options import MapOptions
from service.importing.plan import Plan, PlanPiece, new_map
from service.maps.mosaic import Mosaic, open_mosaic
from service.settings import Settings

MAX_SHARDS = 100_000
"""A job has at most so many shards: the numbers in the names of its files have five digits."""


@dataclass(frozen=True)
class Job:
    """A map that is to be embedded. It travels to the processes that work on it, so it holds paths and numbers only.

    Attributes:
        source: the map's file or folder.
        out: the folder for the shards.
        shards: into how many the work is divided.
        options: see ``MapOptions``.
        settings: which model on which device.
    """

    source: Path
    out: Path
    shards: int
    options: MapOptions
    settings: Settings

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= MAX_SHARDS:
            raise InvalidParameter(f"a job has 1 to {MAX_SHARDS} shards; got {self.shards}.", limit=MAX_SHARDS)

    def path(self, shard: int) -> Path:
        """Return the file of a shard, counted from 0."""
        return self.out / f"shard-{shard:05d}-of-{self.shards:05d}.parquet"

    @contextmanager
    def opened(self, contract: ModelContract) -> Iterator[Outline]:
        """Give the source, and what is to be made of it.

        Raises:
            AerofixError: the source cannot be imported; see ``open_mosaic``.
        """
        name = self.source.name
        with closing(open_mosaic(self.source, name=name, scheme=self.options.scheme)) as mosaic:
            options = replace(self.options, map=self.options.map or plain(mosaic.name))
            check_map_name(str(options.map))
            lattice = Lattice(contract.image_size)
            new, told = new_map(lattice, mosaic, options, name), fingerprint(self.source, self.out)
            yield Outline(mosaic, new, told, lattice, contract, self.shards)


@dataclass(frozen=True, eq=False)
class Outline:
    """A job whose source is open.

    Attributes:
        mosaic: the source.
        map: what is made of it.
        fingerprint: of the source's files.
        lattice: of its windows.
        contract: of the model.
        shards: into how many the work is divided.
    """

    mosaic: Mosaic
    map: NewMap
    fingerprint: str
    lattice: Lattice
    contract: ModelContract
    shards: int

    @property
    def plan(self) -> Plan:
        """All pieces, in their order."""
        return plan_of(self.map, self.lattice)

    @property
    def identity(self) -> dict[str, Any]:
        """What shards that belong together have alike."""
        return {
            "version": 1,
            "map": asdict(self.map) | {"bounds": list(self.map.bounds), "levels": list(self.map.levels)},
            "source": self.fingerprint,
            "model": self.contract.identity,
            "embedding_dim": self.contract.embedding_dim,
            "window_px": self.contract.image_size,
            "local_shape": None if self.contract.local_shape is None else list(self.contract.local_shape),
            "shards": self.shards,
        }

    def share(self, shard: int) -> list[tuple[int, PlanPiece]]:
        """List the pieces of a shard with their numbers: neighbours, as much work as those of any other shard."""
        plan = self.plan
        costs = [plan.cost(piece.end) for piece in plan.pieces]
        first, last = (bisect_left(costs, costs[-1] * n / self.shards) for n in (shard, shard + 1))
        if shard == 0:
            first = 0
        if shard == self.shards - 1:
            last = len(costs)
        return list(enumerate(plan.pieces))[first:last]


def plan_of(new: NewMap, lattice: Lattice) -> Plan:
    """Return the plan of a whole map."""
    return Plan(lattice, new.bounds, new.levels, new.min_zoom, new.max_zoom)
