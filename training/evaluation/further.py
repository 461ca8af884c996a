"""What of a checkpoint can be measured beyond its ranking: all is checked before the first image is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from training.data.base import Task
from training.evaluation.consistency import Consistency, consistency_of, load_for_gradients
from training.evaluation.locate import metric_localization

#: Does the work and returns figures by name.
Measure = Callable[[], dict[str, float]]


def further_measures(
    checkpoint: Path, tasks: Sequence[Task], *, locate: bool, consistency: bool
) -> dict[str, dict[str, Measure]]:
    """Return what is still to be measured, by task and name, once it is sure that it can be.

    Args:
        checkpoint: of a run.
        tasks: all that the model is judged by.
        locate: metres within the right tile, of the first task (``metric_localization``).
        consistency: how alike Grad-CAM maps stay, of every task (``consistency_of``).

    Raises:
        TrainingError: the checkpoint or the data set has not what that takes.
    """
    measures: dict[str, dict[str, Measure]] = {task.name: {} for task in tasks}
    if locate:
        measures[tasks[0].name]["locate"] = metric_localization(checkpoint, tasks[0])
    if consistency:
        encoder = load_for_gradients(checkpoint)
        for task in tasks:
            measures[task.name]["consistency"] = _as_figures(consistency_of(encoder, task))
    return measures


def _as_figures(measure: Callable[[], Consistency]) -> Measure:
    return lambda: asdict(measure())
