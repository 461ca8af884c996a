"""Random calls of a vector index, beside brute force that gets the same calls."""

import numpy as np
from hypothesis import strategies as st

from service.geo import Circle, haversine_m
from service.ground.index.protocol import NO_ID

DIM = 12
STEPS = st.lists(st.sampled_from(["upsert", "delete", "search"]), max_size=25)


class BruteForce:
    """The rules of the protocol, one vector at a time."""

    def __init__(self):
        self.rows = {}

    def upsert(self, ids, vectors, centres):
        self.rows.update({int(i): (v.astype(float), c) for i, v, c in zip(ids, vectors, centres, strict=True)})

    def delete(self, ids):
        for i in ids.tolist():
            self.rows.pop(i, None)

    def inside(self, area):
        def lies_in(centre):
            return area is None or haversine_m(area.lat, area.lon, *centre) <= area.radius_m

        return {i: vector for i, (vector, centre) in self.rows.items() if lies_in(centre)}

    def search(self, queries, k, area):
        scores = np.full((len(queries), k), -np.inf, np.float32)
        ids = np.full((len(queries), k), NO_ID)
        for n, query in enumerate(queries):
            scored = [
                (float(np.float32((v * query.astype(float)).sum() / np.sqrt((v * v).sum()))), i)
                for i, v in self.inside(area).items()
            ]
            for rank, (score, i) in enumerate(sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:k]):
                scores[n, rank], ids[n, rank] = score, i
        return scores, ids


def unit(rng, count):
    """Queries: unit vectors in float32. What is stored is these in float16."""
    vectors = rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stored(rng, count):
    return unit(rng, count).astype(np.float16)


def places(rng, count):
    """Around a spot on the antimeridian, with the poles among them."""
    centres = np.column_stack([rng.uniform(-1, 1, count), (rng.uniform(179, 181, count) + 180) % 360 - 180])
    centres[rng.random(count) < 0.05] = (90, 0)
    return centres


def go_through(index, steps, seed, compare):
    """Do as told and search at the end, in both; ``compare`` gets the answers, each ``(scores, ids)``."""
    rng, reference = np.random.default_rng(seed), BruteForce()
    for step in [*steps, "search"]:
        if step == "upsert":
            ids = rng.choice(200, size=rng.integers(0, 40), replace=False)
            vectors, centres = stored(rng, len(ids)), places(rng, len(ids))
            index.upsert(ids, vectors, centres)
            reference.upsert(ids, vectors, centres)
        elif step == "delete":
            ids = rng.choice(200, size=rng.integers(0, 60))
            index.delete(ids)
            reference.delete(ids)
        else:
            area = Circle(float(rng.uniform(-1, 1)), float(rng.choice([179.9, -179.9])), float(rng.uniform(1e3, 2e5)))
            for where in (None, area, Circle(90, 0, 1000)):
                assert index.count(where) == len(reference.inside(where))
                queries = unit(rng, int(rng.choice([1, 2, 30])))  # one at a time and in bulk go other ways in BLAS
                k = int(rng.integers(1, 50))
                compare(index.search(queries, k, where), reference.search(queries, k, where))
