"""A model judged on a data set: retrieval in both gallery protocols, metres, robustness, and the sheet of failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from training.data.base import Images, Task
from training.errors import TrainingError
from training.evaluation.embed import Embedder, Flipped, OnnxEmbedder, TorchEmbedder, embed, load_embedder
from training.evaluation.further import Measure
from training.evaluation.metrics import SDM, Sdm
from training.evaluation.protocol import FILTERED_TOO, Outcome, Protocol, filtered, judge
from training.evaluation.report import write_report
from training.evaluation.rerank import reranked
from training.evaluation.robustness import robustness as robustness_grid
from training.evaluation.search import Embeddings, Ranking
from training.evaluation.tables import Found, show

PROTOCOLS: Mapping[str, tuple[Protocol, ...]] = {
    "full": ("full",),
    "filtered": ("filtered",),
    "both": ("full", "filtered"),
}
JSON_VERSION = 1


def evaluate(
    model: Path | Embedder,
    tasks: Sequence[Task],
    *,
    dataset: str,
    gallery: Literal["full", "filtered", "both"] | None = None,
    flip: bool = False,
    robustness: bool = False,
    rerank: bool = False,
    further: Mapping[str, Mapping[str, Measure]] | None = None,
    json_path: Path | None = None,
    report_dir: Path | None = None,
    sdm: Mapping[str, Sdm] = SDM,
    batch: int = 64,
    quiet: bool = False,
) -> dict[str, Any]:
    """Judge a model, print tables, and return the results as JSON-able data.

    Args:
        model: an ``.onnx`` file, a checkpoint, or a loaded model.
        tasks: what to ask, usually both directions of a data set, with images of the model's input size.
        dataset: name of the data set, for the results.
        gallery: rank all gallery images, only those of places that are asked for, or both, one after the other; None:
            both where figures of both are published (``FILTERED_TOO``), else all.
        flip: add the embeddings of mirror images.
        robustness: R@1 of turned and cropped queries, too (in the full gallery, unless only the filtered one is asked).
        rerank: look at the first five answers again, by dense descriptors (UnifyGeo); not together with ``flip``.
        further: what else to measure, by task and name (``further_measures``).
        json_path: write the results here.
        report_dir: write the sheet of the worst failures here (same gallery as the robustness).
        sdm: variants of SDM, by name.
        batch: images run at once.
        quiet: print nothing.

    Returns:
        ``version``, ``model``, ``dataset``, ``flip``, ``rerank`` and, for each task, ``full`` and ``filtered`` with
        ``counts`` and ``metrics``, ``robustness``, and what is measured ``further``: nothing that depends on when,
        where and by which command it was measured.

    Raises:
        TrainingError: the model cannot be read, is broken or has nothing to re-rank by, a task is empty, or
            ``gallery`` is unknown.
    """
    gallery = gallery or ("both" if dataset in FILTERED_TOO else "full")
    if gallery not in PROTOCOLS:
        raise TrainingError(f"There is no gallery protocol {gallery!r}: choose {', '.join(PROTOCOLS)}.")
    if len({task.name for task in tasks}) != len(tasks) or not tasks:
        raise TrainingError("Give one task or more, each with a name of its own.")
    embedder = load_embedder(model) if isinstance(model, Path) else model
    again = _second_look(embedder, flip, batch) if rerank else None
    embedder = Flipped(embedder) if flip else embedder
    outcomes: list[Outcome] = []
    grids: dict[str, dict[str, Any]] = {}
    embedded: dict[int, Embeddings] = {}  # by identity: one direction's queries may be the other's gallery

    def embeddings(images: Images, label: str) -> Embeddings:
        if id(images) not in embedded:
            embedded[id(images)] = embed(embedder, images, batch=batch, label=label, quiet=quiet)
        return embedded[id(images)]

    for task in tasks:
        asked = embeddings(task.queries, f"{task.name}: queries")
        held = embeddings(task.gallery, f"{task.name}: gallery")
        outcomes += [judge(task, asked, held, protocol, sdm, again) for protocol in PROTOCOLS[gallery]]
        if robustness:
            if gallery == "filtered":
                task, rows = filtered(task)
                held = held[rows]
            grids[task.name] = robustness_grid(embedder, task, held, batch=batch, quiet=quiet)

    found = {task: {name: measure() for name, measure in wanted.items()} for task, wanted in (further or {}).items()}
    result = _result(embedder.model_id, dataset, {"flip": flip, "rerank": rerank}, outcomes, grids, found)
    if json_path is not None:
        _write_json(json_path, result)
    title = f"{embedder.model_id} on {dataset}{', with test-time flip' if flip else ''}"
    if report_dir is not None:
        write_report(report_dir, title, outcomes, grids, found)
    if not quiet:
        show(outcomes, grids, found, title)
    return result


def _second_look(embedder: Embedder, flip: bool, batch: int) -> Callable[[Ranking, Task], Ranking]:
    if flip or not isinstance(embedder, TorchEmbedder | OnnxEmbedder):
        raise TrainingError("Re-ranking needs the model itself: leave out --flip.")
    embedder.require_descriptors()
    return lambda ranking, task: reranked(ranking, task, embedder.features, batch=batch)


def _result(
    model_id: str,
    dataset: str,
    options: dict[str, bool],
    outcomes: Sequence[Outcome],
    grids: dict[str, dict[str, Any]],
    found: Found,
) -> dict[str, Any]:
    by_task: dict[str, dict[str, Any]] = {}
    for outcome in outcomes:
        by_task.setdefault(outcome.task.name, {})[outcome.protocol] = outcome.as_json()
    for name, grid in grids.items():
        by_task[name]["robustness"] = grid
    for name, measured in found.items():
        by_task[name] |= measured
    return {"version": JSON_VERSION, "model": model_id, "dataset": dataset, **options, "tasks": by_task}


def _write_json(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
