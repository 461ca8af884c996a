"""Data sets in memory, a model made of mean colours, and a slow evaluator that was written from the definitions."""

import numpy as np
import pytest
import torch

from training.data.base import Task, same_place


class MemoryImages:
    """Images ``[N, 3, S, S]`` in memory."""

    def __init__(self, images, place, position=None, name=None):
        self.images, self.place = images, np.asarray(place, np.int64)
        self.position = None if position is None else np.asarray(position, np.float64)
        self.name = name or [f"{i:04d}.jpg" for i in range(len(images))]
        self.loaded = []

    def __len__(self):
        return len(self.images)

    def load(self, index):
        self.loaded += list(index)
        return self.images[list(index)]


class MeanColours:
    """Unit vectors from the mean colours of an image's 4 × 4 cells, centred: alike images are close."""

    model_id, image_size, resize = "mean-colours", 32, "squash"

    def __call__(self, images):
        cells = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        return torch.nn.functional.normalize(cells - cells.mean(1, keepdim=True), dim=1).numpy()


def patches(seed, size=32):
    """A picture ``[3, S, S]`` of soft patches, unlike any other seed's."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(int(seed)))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False)[0]


@pytest.fixture(scope="session")
def memory_images():
    return MemoryImages


@pytest.fixture(scope="session")
def mean_colours():
    return MeanColours()


@pytest.fixture(scope="session")
def make_task():
    """``make_task(places, distractors, noise, positions)``: two drone images a place, one map image of each, strangers.

    ``noise`` is mixed into drone images; with positions the places lie 0.001° of latitude (111.2 m) apart.
    """

    def make(places=6, distractors=3, noise=0.2, positions=True, name="drone_to_satellite", file_names=None):
        owner = np.repeat(np.arange(places), 2)
        drone = torch.stack([(1 - noise) * patches(p) + noise * patches(1000 + i) for i, p in enumerate(owner)])
        maps = torch.stack([patches(p) for p in range(places + distractors)])

        def where(place):
            return np.stack([48 + 0.001 * place, np.full(len(place), 9.0)], axis=1) if positions else None

        queries = MemoryImages(drone, owner, where(owner), file_names)
        gallery_place = np.arange(places + distractors)
        gallery = MemoryImages(maps, gallery_place, where(gallery_place))
        return Task(name, queries, gallery, same_place(queries, gallery))

    return make


@pytest.fixture(scope="session")
def unit_vectors():
    """``unit_vectors(rng, n)``: rows of the 24-cell, whose inner products are exact in floats and often equal."""
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    halves = np.array([[a, b, c, d] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1) for d in (-1, 1)]) / 2
    corners = np.concatenate([axes, halves]).astype(np.float32)
    return lambda rng, n: corners[rng.integers(0, len(corners), n)]


@pytest.fixture(scope="session")
def random_case(unit_vectors):
    """``random_case(seed)``: queries, gallery, positives, semi-positives; full of ties, 0 to 8 positives a query."""

    def make(seed):
        rng = np.random.default_rng(seed)
        queries, gallery = unit_vectors(rng, rng.integers(1, 50)), unit_vectors(rng, rng.integers(1, 40))
        own = [rng.permutation(len(gallery))[: rng.integers(0, 9)] for _ in queries]
        split = [rng.integers(0, len(rows) + 1) for rows in own]
        positives = [np.sort(rows[:cut]) for rows, cut in zip(own, split, strict=True)]
        semis = [np.sort(rows[cut:]) for rows, cut in zip(own, split, strict=True)]
        return queries, gallery, positives, semis

    return make


def slow_order(query, gallery, own):
    """Rows from best to worst, by the definition: score falls; among equals wrong before right, then rising rows."""
    scores = [sum(float(a) * float(b) for a, b in zip(query, row, strict=True)) for row in gallery]
    return sorted(range(len(gallery)), key=lambda row: (-scores[row], row in own, row)), scores


def slow_metrics(queries, gallery, positives, semis, full_gallery):
    """Recall, both APs and the hit rate in plain Python, one query at a time, walking down the whole ranking."""
    names = {"recall@1": 1, "recall@5": 5, "recall@10": 10, "recall@1%": round(full_gallery / 100) + 1}
    total = dict.fromkeys([*names, "ap", "ap_plain", "hit_rate"], 0.0)
    for i, query in enumerate(queries):
        own, semi = set(positives[i].tolist()), set(semis[i].tolist())
        order, scores = slow_order(query, gallery, own)
        for name, k in names.items():
            total[name] += any(row in own for row in order[:k])
        found, area, plain, old_recall, old_precision = 0, 0.0, 0.0, 0.0, 1.0
        for seen, row in enumerate(order, start=1):  # the area under precision over recall, by trapezoids
            found += row in own
            if not own:
                continue
            recall, precision = found / len(own), found / seen
            area += (recall - old_recall) * (old_precision + precision) / 2
            plain += precision / len(own) if row in own else 0
            old_recall, old_precision = recall, precision
        total["ap"] += area
        total["ap_plain"] += plain
        if own:
            best = max(scores[row] for row in own)
            total["hit_rate"] += all(scores[row] <= best for row in range(len(gallery)) if row not in own | semi)
    return {name: value / len(queries) for name, value in total.items()}


@pytest.fixture(scope="session")
def slow():
    """``slow.order`` and ``slow.metrics``."""
    from types import SimpleNamespace

    return SimpleNamespace(order=slow_order, metrics=slow_metrics)
