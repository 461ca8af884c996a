"""Which positions of two descriptor maps show the same ground, and the turn, scale and shift between them.

Positions are complex numbers, right + i·up, so that a similarity (turn, scale, shift; no mirroring) is ``z → a·z + b``
with complex ``a`` and ``b``: two pairs of points determine it, and its least-squares fit has a closed form.
"""

import cmath
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

HYPOTHESES = 512
"""So many pairs of matches are tried. With a tenth of the matches right, 1 % of the pairs are: the chance to draw one
is 99.4 %."""

DRAWS_PER_HYPOTHESIS = 4
"""For each hypothesis so many pairs are drawn, and the first ones kept that could be right by their own length; random
ones fail by half or so."""

MOST_DRAWS = 4
"""At most so many times as many pairs are drawn where the turn is known, for so many more fail."""

MIN_BASELINE = 0.15
"""Pairs must be further apart than this, in sides of the photo: below, the half cell that a match is off by turns a
pair by over 10°."""

POLISH_ROUNDS = 4
"""So many times the inliers of the fit before are fitted again; in tests the third changes nothing in most cases."""

SEED, DICE_BITS = 20_260_418, 31
"""Draws are the same for every fit, so that the same photo gets the same answer: numbers of so many bits, of which the
share of their range tells the match."""

_DICE = np.random.default_rng(SEED).integers(2**DICE_BITS, size=(2, HYPOTHESES * DRAWS_PER_HYPOTHESIS * MOST_DRAWS))


@dataclass(frozen=True)
class Similarity:
    """The map ``z → a·z + b`` and the matches that agree with it.

    Attributes:
        inliers: bool ``[M]``.
        residual: root mean square over the inliers of their distance in tolerances, 0–1.
    """

    a: complex
    b: complex
    inliers: NDArray[np.bool_]
    residual: float

    @property
    def scale(self) -> float:
        """Target units per source unit."""
        return abs(self.a)

    @property
    def rotation_deg(self) -> float:
        """Counter-clockwise, in (-180, 180]."""
        return math.degrees(cmath.phase(self.a))

    @property
    def count(self) -> int:
        """Number of inliers."""
        return int(self.inliers.sum())


def cell_centres(height: int, width: int) -> Complex:
    """Place the centres of a map's cells, row by row, ``[height · width]``: right + i·up in sides from the middle."""
    right = (np.arange(width) + 0.5) / width - 0.5
    up = 0.5 - (np.arange(height) + 0.5) / height
    return (right + 1j * up[:, None]).ravel()


def mutual_neighbours(photo: NDArray[np.float32], tile: NDArray[np.float32]) -> tuple[Indices, Indices]:
    """Return cells that are each other's most similar one.

    Args:
        photo: descriptors ``[C, P]``, of equal length over C.
        tile: descriptors ``[C, Q]``, likewise; both lengths are free.

    Returns:
        Cells of the photo and of the tile, ``[M]`` each, by tile cell.
    """
    similarity = tile.T @ photo
    nearest = similarity.argmax(axis=1)
    rows = np.arange(len(nearest))
    # one pass along each axis: a cell's best is mutual when no other cell of its column is better
    mutual = similarity[rows, nearest] == similarity.max(axis=0)[nearest]
    return nearest[mutual], rows[mutual]


def fit_similarity(
    source: Complex,
    target: Complex,
    tolerance: Floats,
    scale_range: tuple[float, float],
    toward: complex = 1 + 0j,
    within_deg: float = 180.0,
) -> Similarity | None:
    """Fit a similarity to matched points: RANSAC over pairs (Fischler and Bolles 1981), polished by least squares.

    Hypotheses are scored as in MSAC (Torr and Zisserman 2000): an inlier counts the more the closer it is.

    Args:
        source: ``[M]``, in sides of the photo.
        target: ``[M]``.
        tolerance: ``[M]``, how far a match may be off, in target units.
        scale_range: smallest and largest scale that can be right.
        toward: of length 1; where a step to the right is expected to lead.
        within_deg: how far from there it may lead.

    Returns:
        The best one, None when no pair of matches is possible or least squares leave the range.
    """
    if len(source) < 2:
        return None
    a, b = _hypotheses(source, target, scale_range, toward, within_deg)
    if not len(a):
        return None
    best = int(np.argmin(_costs(a, b, source, target, tolerance)))
    found_a, found_b = complex(a[best]), complex(b[best])
    inliers = _distances(found_a, found_b, source, target, tolerance) < 1
    for _ in range(POLISH_ROUNDS):
        found_a, found_b = _least_squares(source[inliers], target[inliers], tolerance[inliers] ** -2)
        if not scale_range[0] <= abs(found_a) <= scale_range[1]:
            return None
        distances = _distances(found_a, found_b, source, target, tolerance)
        before, inliers = inliers, distances < 1
        if inliers.sum() < 2:
            return None
        if np.array_equal(before, inliers):
            break
    return Similarity(found_a, found_b, inliers, float(np.sqrt(np.mean(distances[inliers] ** 2))))


def _hypotheses(
    source: Complex, target: Complex, scale_range: tuple[float, float], toward: complex, within_deg: float
) -> tuple[Complex, Complex]:
    """Similarities through two matches each, ``a [H]`` and ``b [H]``, H at most ``HYPOTHESES``."""
    draws = HYPOTHESES * DRAWS_PER_HYPOTHESIS * min(MOST_DRAWS, math.ceil(180 / within_deg))
    one, two = (_DICE[:, :draws] * len(source)) >> DICE_BITS
    across, step = source[two] - source[one], target[two] - target[one]
    across_2, step_2 = _squares(across), _squares(step)
    turned = step * across.conj()  # a, times across_2
    possible = (across_2 >= MIN_BASELINE**2) & (step_2 >= scale_range[0] ** 2 * across_2)
    possible &= step_2 <= scale_range[1] ** 2 * across_2
    possible &= (turned * toward.conjugate()).real >= math.cos(math.radians(within_deg)) * np.sqrt(step_2 * across_2)
    rows = np.flatnonzero(possible)[:HYPOTHESES]
    a = turned[rows] / across_2[rows]
    return a, target[one[rows]] - a * source[one[rows]]


def _costs(a: Complex, b: Complex, source: Complex, target: Complex, tolerance: Floats) -> NDArray[np.float32]:
    """Sum over matches of the squared distance in tolerances, at most 1 each; ``[H]``.

    In single precision, right and up of ``a·z + b − t`` are one matrix product each, ``[H, 4] @ [4, M]``.
    """
    ones, z, t = np.ones(len(source)), source / tolerance, target / tolerance
    right = np.stack([a.real, -a.imag, b.real, -np.ones(len(a))], axis=1).astype(np.float32)
    up = np.stack([a.imag, a.real, b.imag, -np.ones(len(a))], axis=1).astype(np.float32)
    points = [z.real, z.imag, ones / tolerance]
    off_right = right @ np.stack([*points, t.real]).astype(np.float32)
    off_up = up @ np.stack([*points, t.imag]).astype(np.float32)
    np.square(off_right, out=off_right)
    off_right += np.square(off_up, out=off_up)
    costs: NDArray[np.float32] = np.minimum(off_right, 1, out=off_right).sum(axis=1)
    return costs


def _squares(points: Complex) -> Floats:
    squares: Floats = np.square(points.real) + np.square(points.imag)
    return squares


def _distances(a: complex, b: complex, source: Complex, target: Complex, tolerance: Floats) -> Floats:
    distances: Floats = np.abs(a * source + b - target) / tolerance
    return distances


def _least_squares(source: Complex, target: Complex, weights: Floats) -> tuple[complex, complex]:
    """Minimise ``Σ w |a·z + b − t|²`` (Umeyama 1991).

    About the weighted means of z and t, ``a = Σ w conj(z)·t / Σ w |z|²``; b takes the one mean to the other.
    """
    total = weights.sum()
    z_mean, t_mean = (weights * source).sum() / total, (weights * target).sum() / total
    z, t = source - z_mean, target - t_mean
    spread = (weights * (z * z.conj()).real).sum()
    a = complex((weights * z.conj() * t).sum() / spread) if spread > 0 else 0j
    return a, complex(t_mean - a * z_mean)
