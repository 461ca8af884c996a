"""Simulated views as bytes on disk: rendering is half of the time of a step, and another run needs the same ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter

from training.errors import TrainingError

_Views = TypeVar("_Views")
#: What changes no view: where files are (a view has its place's name), how often they are drawn, how they are coloured.
_NO_MATTER = {"root", "cache", "views", "textures", "dates", "dates_held_out", "dates_share", "held_out_share"} | {
    "quarter_turns",
    "recolour_share",
    "jpeg_quality",
}


class ViewCache:
    """A file for each view, in a folder for everything that views depend on.

    Args:
        folder: is made when the first view is kept.
        settings: the config of the simulator, image size and seed.
    """

    def __init__(self, folder: Path, settings: tuple[Any, int, int]) -> None:
        config, *others = settings
        tree = TypeAdapter(type(config)).dump_python(config, mode="json")
        flight = {key: value for key, value in tree.items() if key not in _NO_MATTER}
        self.folder = folder / hashlib.sha256(json.dumps([flight, others]).encode()).hexdigest()[:16]

    def get(self, name: str, kind: type[_Views], take: Callable[[], _Views]) -> _Views:
        """Return the view of this name, taken now if it never was.

        Args:
            name: of place and view.
            kind: a dataclass of tensors.
            take: renders the view.

        Raises:
            TrainingError: the folder cannot be written, or a file in it is damaged.
        """
        file = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        try:
            if not file.exists():
                self._keep(take(), file)
            with np.load(file) as arrays:
                names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a dataclass
                return kind(*(torch.from_numpy(arrays[field]) for field in names))
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(
                f"data.cache: {file} cannot be kept or read ({error}). Delete it, or choose another folder."
            ) from error

    def _keep(self, views: Any, file: Path) -> None:
        """Written beside its place and moved there: a kill leaves the whole file or none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as out:
            np.savez(out, **{f.name: getattr(views, f.name).numpy() for f in dataclasses.fields(views)})
        partial.replace(file)
