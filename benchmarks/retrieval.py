"""Finding the place before anything is matched, and whether matching would tell: a model file alone, without service.

    python benchmarks/retrieval.py --all --root DATA [--models BEFORE.onnx AFTER.onnx …] [--galleries 1000 10000]
    python benchmarks/retrieval.py --data FOLDER [--models …]

DATA is the folder that the globs of configs/lite2_dates.yaml count from; ``fengyuan`` and ``ariel`` in it are the real
photos. Splits: simulated photos of places that training never saw, on the map's own date and on another one; real
photos. North up are those that a known heading turns so. Every gallery is filled with windows of other places to the
size asked for. FOLDER as for ``real.py``: its
photos against tiles of 86 m of its own map, alone.

Found: the right window is among the k best by embedding, the photo asked as it is (one turn), or in four quarter turns
of which the best counts. Matched (``agreement.py``): the window that fits the photo best against 24 wrong ones; AUROC
of the agreeing positions, and how often the right one has the most.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import _needs  # noqa: F401 - before the others
import numpy as np
import onnxruntime as ort
from agreement import auroc, most_agreeing
from numpy.typing import NDArray
from places import SEED, Split, ariel, distractors, fengyuan, other_dates, survey_split
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))
from training.config import load_config

ROOT = Path(__file__).parents[1]
SHIPPED, CONFIG = ROOT / "models" / "aerofix-lite2.onnx", ROOT / "configs" / "lite2_dates.yaml"
RANKS = (1, 5, 10, 20, 128)
WRONG = 24
OTHERS = ("aerial_texture/rsscn7/*/*.jpg", "aerial_texture/epfl_roads/*.jpg", "aerial_texture/fields_and_uk/*/*.jpg")


class Model:
    """A model file, run on its own; what it said of pictures before is kept in a folder."""

    def __init__(self, path: Path, kept: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.path, self.kept = path, kept / hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.embed_dim: int = next(each.shape[-1] for each in self.session.get_outputs() if each.name == "embedding")

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit vectors ``[N, D]`` of pictures ``[N, S, S, 3]``."""
        file = self.kept / f"{hashlib.sha256(pictures.tobytes()).hexdigest()[:16]}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                self.session.run(["embedding"], {"image": pictures[i : i + 8]})[0] for i in range(0, len(pictures), 8)
            ]
            np.save(file, np.concatenate(rows))
        vectors: NDArray[np.float32] = np.load(file)
        return vectors

    def embed_each(self, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return vectors of pictures that come in parts, for which there is no room at once."""
        return np.concatenate([np.empty((0, self.embed_dim), np.float32), *map(self.embed, pictures)])

    def local(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return descriptors ``[N, C, h, w]``."""
        rows = [self.session.run(["local"], {"image": pictures[i : i + 8]})[0] for i in range(0, len(pictures), 8)]
        return np.concatenate(rows)


def four_turns(pictures: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return the pictures ``[N, S, S, 3]``, and turned by quarters."""
    return [np.ascontiguousarray(np.rot90(pictures, k, (1, 2))) for k in range(4)]


def ranks(model: Model, split: Split, others: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count wrong windows before the first right one: ``[4 Q]`` for each turn, ``[Q]`` for the best of four.

    What is drawn north up has one turn, ``[Q]`` and ``[Q]``.

    The gallery is the split's windows and ``others``, vectors ``[N, D]``.
    """
    gallery = np.concatenate([model.embed(split.windows), others])
    right = np.pad(split.right, ((0, 0), (0, len(others))))
    turned = [split.photos] if split.north_up else four_turns(split.photos)
    scores = np.stack([model.embed(photos) @ gallery.T for photos in turned])
    single = np.concatenate([_before(each, right) for each in scores])
    return single, _before(scores.max(0), right)


def _before(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return (~right & (scores > best)).sum(1)


def matched(model: Model, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count agreeing positions with the window that fits, ``[Q]``, and with wrong ones, ``[Q, 24]``."""
    windows = model.local(split.windows)
    turns = np.stack([model.local(photos) for photos in four_turns(split.photos)], 1)
    rng = np.random.default_rng(SEED)
    right, wrong = [], []
    for turned, fits, row in zip(turns, split.fits, split.right, strict=True):
        drawn = rng.permutation(np.flatnonzero(~row))[:WRONG]
        right.append(most_agreeing(turned, windows[fits]))
        wrong.append([most_agreeing(turned, windows[i]) for i in drawn])
    return np.array(right), np.array(wrong)


def _add_found(table: Table, model: Model, split: Split, others: NDArray[np.float32], size: int) -> None:
    filled = others[: max(0, size - len(split.windows))]
    single, four = ranks(model, split, filled)
    rows = {"one": single} if split.north_up else {"one": single, "best of 4": four}
    for turns, found in rows.items():
        shares = (f"{(found < k).mean():.3f}" for k in RANKS)
        table.add_row(model.path.stem, split.name, str(len(split.windows) + len(filled)), turns, *shares)


def _add_matched(table: Table, model: Model, split: Split) -> None:
    right, wrong = matched(model, split)
    for group in sorted(set(split.group)):
        mine = np.array([g == group for g in split.group])
        first = (right[mine] > wrong[mine].max(1)).mean()
        numbers = (f"{auroc(right[mine], wrong[mine].ravel()):.3f}", f"{first:.3f}", f"{np.median(right[mine]):.0f}")
        table.add_row(
            model.path.stem, split.name, group, str(mine.sum()), *numbers, f"{np.percentile(wrong[mine], 99):.0f}"
        )


def _splits(root: Path, *, every: bool) -> list[Split]:
    data = load_config(CONFIG, [f"data.root={root}"]).data
    same, other = other_dates(data)
    if not every:
        return [other]
    to_the_north = replace(other_dates(data, (0.0, 0.0))[1], name="other date, north up", north_up=True)
    real = [fengyuan(root / "fengyuan"), ariel(root / "ariel"), ariel(root / "ariel", north_up=True)]
    return [same, other, to_the_north, *real]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--root", type=Path, help="folder of all data")
    given.add_argument("--data", type=Path, help="folder of one map and its photos")
    parser.add_argument("--all", action="store_true", help="all splits; else those on another date alone")
    parser.add_argument("--models", type=Path, nargs="+", default=[SHIPPED])
    parser.add_argument("--galleries", type=int, nargs="*", default=[1000], help="windows; none: no search")
    parser.add_argument("--no-matching", action="store_true")
    parser.add_argument("--kept", type=Path, default=ROOT / "runs" / "embedded", help="folder for embeddings")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    splits = _splits(options.root, every=options.all) if options.data is None else [survey_split(options.data)]
    sizes = options.galleries if options.data is None else [0]
    found = Table("model", "split", "windows", "turns", *(f"R@{k}" for k in RANKS), title="found by embedding")
    table = Table(
        "model", "split", "places", "photos", "AUROC", "right first", "right, median", "wrong, 99 %", title="matched"
    )
    for model in (Model(path, options.kept, options.threads) for path in options.models):
        most = max(sizes, default=0)
        others = model.embed_each(distractors(options.root, OTHERS, most) if most else ())
        for split in splits:
            for size in sizes:
                _add_found(found, model, split, others, size)
            if not options.no_matching:
                _add_matched(table, model, split)
    for each in (found, table):
        if each.row_count:
            Console(width=120).print(each)


if __name__ == "__main__":
    main()
