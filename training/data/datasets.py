"""From the config of a data set to the data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.data.base import Dataset
from training.data.denseuav import DenseUAV, DenseUAVConfig
from training.data.gta_uav import GTAUAV, GTAUAVConfig
from training.data.images import InputSize
from training.data.simulator.simulated import Simulated, SimulatedConfig
from training.data.sues200 import SUES200, SUES200Config
from training.data.university1652 import University1652, University1652Config
from training.data.vigor import VIGOR, VIGORConfig

#: A section ``data`` of the config; ``dataset`` tells them apart.
DatasetConfig = SimulatedConfig | University1652Config | SUES200Config | DenseUAVConfig | VIGORConfig | GTAUAVConfig

_FILES: dict[type, Callable[[Any, InputSize], Dataset]] = {
    University1652Config: University1652,
    SUES200Config: SUES200,
    DenseUAVConfig: DenseUAV,
    VIGORConfig: VIGOR,
    GTAUAVConfig: GTAUAV,
}


def open_dataset(config: DatasetConfig, size: InputSize, *, seed: int) -> Dataset:
    """Look at a data set's folder and make it ready.

    Args:
        config: which data set, and where.
        size: of the images that the model wants (a ``ModelConfig`` is one).
        seed: of simulated scenes; data sets of files do not depend on it.

    Raises:
        TrainingError: the folder is missing or is not laid out as it should be; the message shows how.
    """
    if isinstance(config, SimulatedConfig):
        return Simulated(config, size, seed=seed)
    return _FILES[type(config)](config, size)
