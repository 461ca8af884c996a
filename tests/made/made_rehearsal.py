"""Answers as a service might give them, of known truth."""

import numpy as np

from training.export.rehearsal import Rehearsal

PLACES = 20
CHANCE_SUPPORT = 15


def rehearsal(answers=2000, seed=0):
    """The right tile is as good as its rivals by cosine, but has a support of 20 to 150 where they have up to 15."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(0.6, 0.02, (answers, PLACES)), axis=1)
    support = rng.integers(0, CHANCE_SUPPORT + 1, (answers, PLACES)).astype(float)
    centres = np.tile(np.stack((np.arange(PLACES) * 10.0, np.zeros(PLACES)), axis=1), (answers, 1, 1))
    away, own = rng.random(answers) < 0.25, rng.integers(PLACES, size=answers)
    support[~away, own[~away]] = rng.integers(20, 150, (~away).sum())
    truth = np.stack((own * 10.0, np.zeros(answers)), axis=1)
    positions = truth + rng.normal(0, 0.02, truth.shape)
    known = np.where(away[:, None], np.nan, truth)
    spread, none = np.full(answers, 0.01), np.zeros(answers, bool)
    return Rehearsal(scores, support, centres, positions, known, spread, none, none)
