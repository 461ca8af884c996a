"""The folder of a run: its config, where it ran, its log, its metrics, its TensorBoard events."""

from __future__ import annotations

import csv
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from torch.utils.tensorboard import SummaryWriter

from training.config import Config, dump_config
from training.distributed import World

_PACKAGES = ("aerofix", "torch", "torchvision", "timm", "numpy")


class RunFolder:
    """Writes ``config.yaml``, ``environment.json``, ``log.csv``, ``metrics.jsonl`` and TensorBoard events.

    Args:
        config: of the run; ``run.out`` is the folder.
        world: goes into ``environment.json``.
        step: the step that the run goes on from; rows of the logs after it are dropped, they will be written again.
    """

    def __init__(self, config: Config, world: World, step: int) -> None:
        path = config.run.out
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text(yaml.safe_dump(dump_config(config), sort_keys=False))
        (path / "environment.json").write_text(json.dumps(_environment(world), indent=1))
        _cut_table(path / "log.csv", step)
        _cut_lines(path / "metrics.jsonl", step)
        self._log = (path / "log.csv").open("a", newline="")
        self._metrics = (path / "metrics.jsonl").open("a")
        self._events = SummaryWriter(str(path), purge_step=step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log one step's losses and rates: a row of ``log.csv``, and its scalars."""
        if self._log.tell() == 0:
            csv.writer(self._log).writerow(["step", *values])
        csv.writer(self._log).writerow([step, *(f"{value:.6g}" for value in values.values())])
        self._log.flush()
        for name, value in values.items():
            self._events.add_scalar(f"train/{name}", value, step)

    def measured(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log one evaluation: a line of ``metrics.jsonl``, and its numbers as scalars."""
        self._metrics.write(json.dumps({"step": step, **metrics}) + "\n")
        self._metrics.flush()
        for name, value in metrics.items():
            self._events.add_scalar(f"evaluation/{name}", value, step)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        self._metrics.close()
        self._events.close()


def _environment(world: World) -> dict[str, Any]:
    cuda = world.device.type == "cuda"
    return {
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": torch.cuda.get_device_name(world.device) if cuda else platform.processor() or platform.machine(),
        "processes": world.size,
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cut_table(path: Path, step: int) -> None:
    """Keep the header and the rows up to a step; a row that a kill tore has no end and goes too."""
    rows = path.read_text().splitlines(keepends=True) if path.exists() else []
    kept = [row for row in rows[1:] if row.endswith("\n") and int(row.split(",")[0]) <= step]
    path.write_text("".join(rows[:1] + kept) if kept else "")


def _cut_lines(path: Path, step: int) -> None:
    rows = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step))
