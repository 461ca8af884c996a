"""What a model is judged on: the data set as it was trained on it, unless the command says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.config import Config, dump_config, parse_data
from training.data.datasets import DatasetConfig

#: What says where the run's files lay, which is told anew; nothing of a ``map`` is held out to judge by.
_PLACES = frozenset({"root", "map", "cache"})


def data_to_judge_on(
    dataset: str, root: Path, options: list[str] | None, trained_on: DatasetConfig | None
) -> tuple[DatasetConfig, list[str]]:
    """Return the settings of the data set, and as ``key=value`` those that the model brings and that are no defaults.

    Args:
        dataset: name of the data set to judge on.
        root: its folder.
        options: ``key=value`` of the command; they win.
        trained_on: what the model was trained on, if that is known; settings of another data set say nothing here.

    Raises:
        TrainingError: there is no such data set, a key is unknown, or a value is out of its range.
    """
    asked = {"dataset": dataset, "root": str(root)}
    default = _plain(parse_data(None, dict(asked)))
    brought = {} if trained_on is None or trained_on.dataset != dataset else _plain(trained_on)
    brought = {key: value for key, value in brought.items() if key not in _PLACES}
    data = parse_data(options, brought | asked)
    judged = _plain(data)
    return data, [
        f"{key}={_as_option(value)}" for key, value in brought.items() if default[key] != value == judged[key]
    ]


def _plain(data: DatasetConfig) -> dict[str, Any]:
    tree: dict[str, Any] = dump_config(Config(data=data))["data"]
    return tree


def _as_option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
