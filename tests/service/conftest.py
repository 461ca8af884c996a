"""Made-up ground, and what a model would make of it."""

import numpy as np
import pytest


class Ground:
    """Made-up ground with a descriptor at every point: sums of random waves, unlike those of any other seed.

    Args:
        seed: of the waves.
        grain_m: distance over which descriptors become unlike.
        channels: of a descriptor.
    """

    def __init__(self, seed, grain_m=6.0, channels=64):
        rng = np.random.default_rng(seed)
        shape = (channels, 8, 1)  # of a single wave a channel, all places look a little alike
        self._waves = rng.normal(0, 1 / grain_m, shape) - 1j * rng.normal(0, 1 / grain_m, shape)
        self._phases = rng.uniform(0, 2 * np.pi, shape)

    def __call__(self, points_m):
        """Unit descriptors ``[C, N]`` at points east + i·north."""
        waves = np.cos((self._waves * np.ravel(points_m)).real + self._phases).sum(axis=1)
        return waves / np.linalg.norm(waves, axis=0)


def _spoil(descriptors, seed, noise=0.5, outliers=0.2):
    """Turn every descriptor a little, and replace some by nonsense."""
    rng = np.random.default_rng(seed)
    random = rng.normal(size=descriptors.shape)
    random /= np.linalg.norm(random, axis=0)
    weight = np.where(rng.random(descriptors.shape[1]) < outliers, 1e3, noise)
    spoilt = descriptors + weight * random
    return (spoilt / np.linalg.norm(spoilt, axis=0)).astype(np.float32)


@pytest.fixture(scope="session")
def ground_of():
    """``ground_of(seed)``: made-up ground, see ``Ground``."""
    return Ground


@pytest.fixture(scope="session")
def spoil():
    """``spoil(descriptors, seed, noise, outliers)``: as a model would see them on another day."""
    return _spoil
