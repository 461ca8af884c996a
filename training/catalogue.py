"""What there is to train with: config files by their short names, methods and data sets."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path

from training.errors import TrainingError

_IN_CHECKOUT = Path(__file__).parents[1] / "configs"
CONFIGS = _IN_CHECKOUT if _IN_CHECKOUT.is_dir() else Path(__file__).with_name("configs")
"""The folder of configs: a checkout has it beside ``training``, an installed package within."""

KINDS = {"methods": "methods, the first --config", "data": "data sets, the second", ".": "whole recipes, alone"}
"""The sub-folders of ``CONFIGS``, in the order in which a run names them, and what they hold."""


def find_config(name: str) -> Path:
    """Find the file of a config: a path, or the bare name of one under ``configs/``, such as ``sample4geo``.

    Raises:
        TrainingError: there is no such file; the message lists the names.
    """
    path = Path(name)
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path  # one that is missing is told by whoever reads it
    for folder in KINDS:
        file = CONFIGS / folder / f"{name}.yaml"
        if file.exists():
            return file
    known = ", ".join(file.stem for files in configs().values() for file in files)
    raise TrainingError(f"There is no config {name}: give a file, or one of {known}.")


def configs() -> dict[str, list[Path]]:
    """List all config files by kind, see ``KINDS``."""
    return {folder: sorted((CONFIGS / folder).glob("*.yaml")) for folder in KINDS}


def describe() -> list[str]:
    """List all configs with the first sentence of each, which says what it is."""
    lines = []
    for folder, files in configs().items():
        lines.append(f"{KINDS[folder]}:")
        lines += [f"  {file.stem:<20} {_first_sentence(file)}" for file in files]
    lines.append("aerofix-train fit --config METHOD --config DATA data.root=FOLDER [key=value …]")
    return lines


def _first_sentence(file: Path) -> str:
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line.lstrip("# ") for line in lines), maxsplit=1)[0]
