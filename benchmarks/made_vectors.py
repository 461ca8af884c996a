"""Embeddings of ground that does not exist, with the structure of real ones, as many as wanted.

    python benchmarks/made_vectors.py --data FOLDER [--side 12]     # cosines below, of real windows and as made

Real embeddings are not white noise: a few dozen directions hold most of the variance, neighbouring windows share half
their ground, forests and fields look alike everywhere, and one water is as good as another. All of it decides how well
an approximate index does. So a vector here is a sum of parts, as shares of its squared length: what all ground has in
common, its map, its land cover, a field that changes within some windows, squares of half a window's side that
overlapping windows share, and what is its own. Windows lie on a lattice on three levels as in the gallery; a coarser
one shares half of what is local with the finer one in its middle. Each part is drawn with the measured spectrum.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from service.encoder.session import Encoder
from service.ground.windows import Lattice, rectangle_of
from service.maps.mosaic import open_mosaic
from service.settings import Settings

Floats = NDArray[np.float32]

SPECTRUM = {1: 0.077, 4: 0.040, 16: 0.016, 32: 0.007, 64: 0.0023, 128: 0.00089, 256: 0.00032, 512: 2.5e-5}
"""Share of the variance in the n-th direction, of 6,976 windows of eight sources; straight lines between
in both logarithms."""

COMMON, MAP, COVER, SMOOTH, SHARED, OWN = 0.13, 0.10, 0.04, 0.34, 0.34, 0.05
"""Squared lengths of the parts. Measured medians of cosines: 0.12 between sources, 0.24 within one, and 0.71, 0.59,
0.51, 0.42 and 0.33 of windows a step, a diagonal step, and 2, 4 and 8 steps apart."""

SMOOTH_STEPS = 6.0
"""The smooth part has lost 1 - 1/e of its likeness after so many steps."""

WITH_PARENT = 0.52
"""What is local in a coarser window, against the finer one in its middle: their measured cosine is 0.64 in all."""

COVERS = ((0.45, 1.0), (0.25, 0.6), (0.20, 0.5), (0.10, 0.14))
"""Built, fields, forest, water: share of the ground, and how much of map and local parts is left. Step cosines of 0.78
(fields and forest of ``wildnav``) and cosines of 0.91 to 0.98 among pictures of water follow from it."""

PATCH_STEPS = 24
"""Side of a square of one land cover."""

LEVELS = 3
SIDE_STEPS = 128
"""Side of a map in windows of its finest level."""

STEP_M = 20.0
"""Half a finest window."""


@dataclass(frozen=True)
class Part:
    """Windows of one map: ``vectors`` float16 ``[N, D]`` of unit length, ``centres`` as ``lat, lon``, ``[N, 2]``."""

    vectors: NDArray[np.float16]
    centres: NDArray[np.float64]


class MadeGround:
    """Draws maps one after the other, far apart; the same seed draws the same ones.

    Args:
        dim: D, a multiple of 8.
        seed: of everything.
    """

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        shares = np.interp(np.log(np.arange(1, dim + 1)), np.log(list(SPECTRUM)), np.log(list(SPECTRUM.values())))
        scales = np.sqrt(np.exp(shares) / np.exp(shares).sum())
        turn, _ = np.linalg.qr(self._rng.normal(size=(dim, dim)))
        self._shape = (scales[:, None] * turn).astype(np.float32)
        self._common = self._directions(1)
        self._covers = self._directions(len(COVERS))

    def maps(self, count: int) -> Iterator[Part]:
        """Yield maps until they have ``count`` windows; the last is cut."""
        made = 0
        while made < count:
            part = self._map(np.array([self._rng.uniform(-60, 60), self._rng.uniform(-180, 180)]))
            yield Part(part.vectors[: count - made], part.centres[: count - made])
            made += len(part.vectors)

    def photos(self, windows: Floats) -> Floats:
        """Make queries that show these windows: unit vectors with cosines of 0.5 to 0.8, as those of real photos."""
        noise = self._directions(len(windows))
        noise -= (noise * windows).sum(1, keepdims=True) * windows
        cosines = self._rng.uniform(0.5, 0.8, (len(windows), 1)).astype(np.float32)
        return np.asarray(cosines * windows + np.sqrt(1 - cosines**2) * _unit(noise))

    def _map(self, corner: NDArray[np.float64]) -> Part:
        place, vectors, centres, finer = self._directions(1), [], [], None
        for level in range(LEVELS):
            side = SIDE_STEPS >> level
            covers = self._rng.choice(len(COVERS), size=(side, side), p=[share for share, _ in COVERS])
            rows, columns = np.indices((side, side)) << level
            if not level:
                patches = covers
            cover = patches[rows // PATCH_STEPS, columns // PATCH_STEPS]
            local = self._local(side)
            if finer is not None:
                local = WITH_PARENT * finer[::2, ::2] + np.sqrt(1 - WITH_PARENT**2) * local
            finer = local
            left = np.array([left for _, left in COVERS], np.float32)[cover][..., None]
            parts = left * (local @ self._shape + np.sqrt(MAP) * place)
            parts += (np.sqrt(COVER) * self._covers + np.sqrt(COMMON) * self._common)[cover]
            vectors.append(_unit(parts.reshape(side * side, -1)).astype(np.float16))
            metres = STEP_M * (np.stack([rows, columns], -1).reshape(-1, 2) + 2**level)
            degrees = metres / 111_195 / np.array([1, np.cos(np.radians(corner[0]))])
            centres.append((corner + degrees + 180) % 360 - 180)
        return Part(np.concatenate(vectors), np.concatenate(centres))

    def _local(self, side: int) -> Floats:
        """Local parts of a square of windows before they get the spectrum, ``[side, side, D]``."""
        keep = float(np.exp(-1 / SMOOTH_STEPS))
        smooth = self._white(side, side)
        for lines in (smooth, smooth.swapaxes(0, 1)):  # an autoregressive field along both axes
            for before, line in itertools.pairwise(lines):
                line *= np.sqrt(1 - keep**2)
                line += keep * before
        squares = self._white(side + 1, side + 1)
        pairs = squares[1:] + squares[:-1]
        shared = (pairs[:, 1:] + pairs[:, :-1]) / 2
        return np.asarray(SMOOTH**0.5 * smooth + SHARED**0.5 * shared + OWN**0.5 * self._white(side, side), np.float32)

    def _white(self, *shape: int) -> Floats:
        return self._rng.standard_normal((*shape, len(self._shape)), np.float32)

    def _directions(self, count: int) -> Floats:
        """Random directions, those with much variance more often, ``[count, D]``."""
        return _unit(self._white(count) @ self._shape)


def stored(file: Path, count: int) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
    """Return so many vectors and centres, from a file or made and kept there for the next time."""
    beside = file.with_suffix(".centres.npy")
    if not file.exists():
        out = np.lib.format.open_memmap(file, "w+", np.float16, (count, 512))
        centres, done = np.empty((count, 2)), 0
        for part in MadeGround().maps(count):
            rows = slice(done, done + len(part.vectors))
            out[rows], centres[rows] = part.vectors, part.centres
            done = rows.stop
        np.save(beside, centres)
    return np.load(file, mmap_mode="r"), np.load(beside)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def real_squares(data: Path, side: int) -> dict[str, Floats]:
    """Embed the windows in the middle of each map of the finest level: ``[side, side, D]``."""
    from real_sets import maps_of

    encoder = Encoder(Settings().model, "cpu", 1)
    lattice = Lattice(encoder.contract.image_size)
    squares = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, file, corners in maps_of(data, Path(scratch)):
            mosaic = open_mosaic(file, corners=corners)
            _, south, _, north = mosaic.bounds
            zoom = lattice.levels(mosaic.gsd_m, (south + north) / 2)[0]
            extent, reach = rectangle_of(mosaic.bounds, zoom), (side + 1) * lattice.step_px
            left, top = ((a + b - reach) // 2 for a, b in ((extent.left, extent.right), (extent.top, extent.bottom)))
            pixels, valid = mosaic.read(zoom, left, top, reach, reach)
            mosaic.close()
            if not valid.all():
                continue
            starts = range(0, side * lattice.step_px, lattice.step_px)
            size = lattice.side_px
            rows = [np.stack([pixels[y : y + size, x : x + size] for x in starts]) for y in starts]
            squares[name] = np.stack([encoder.encode(row).embedding for row in rows])
    return squares


def likeness(squares: dict[str, Floats]) -> str:
    """Return median cosines of windows of different sources, of one, and of those some steps apart."""

    def median(left: Floats, right: Floats) -> float:
        return float(np.median((left * right).sum(-1)))

    def apart(down: int, right: int) -> float:
        pairs = ((each[: len(each) - down, : len(each) - right], each[down:, right:]) for each in squares.values())
        return float(np.mean([median(*pair) for pair in pairs]))

    rng = np.random.default_rng(0)
    one = {name: rng.permutation(square.reshape(-1, square.shape[-1])) for name, square in squares.items()}
    between = np.mean([median(a, b) for a, b in itertools.combinations(one.values(), 2)]) if len(one) > 1 else np.nan
    within = np.mean([median(each[::2], each[1::2]) for each in one.values()])
    steps = ", ".join(f"{apart(*step):.2f}" for step in ((0, 1), (1, 1), (0, 2), (0, 4), (0, 8)))
    return f"sources {between:.2f}, one source {within:.2f}, steps of 1, a diagonal, 2, 4 and 8: {steps}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=12, help="windows along a square of each map, an even number")
    chosen = parser.parse_args()
    real = real_squares(chosen.data, chosen.side)
    print(f"{', '.join(real)}: {likeness(real)}")
    drawn = itertools.islice(MadeGround().maps(10**9), 8)
    first = SIDE_STEPS**2
    squares = {str(i): part.vectors[:first].astype(np.float32) for i, part in enumerate(drawn)}
    print(f"made: {likeness({name: each.reshape(SIDE_STEPS, SIDE_STEPS, -1) for name, each in squares.items()})}")


if __name__ == "__main__":
    main()
