"""Pictures of one place on two dates: which files belong together, and where the place still looks like itself."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from training.errors import TrainingError

#: The two dates are compared in blocks of this many pixels: 4 m at 0.5 m/px, coarser than a misregistration.
BLOCK_PX = 8
#: Blocks on a side of the window over which edges must agree: 28 m at 0.5 m/px, a house with its garden.
WINDOW_BLOCKS = 7
#: Edges of unrelated pictures agree to 0.0 ± 0.15, those of one place to 0.3–0.9; new houses on a meadow lie below.
SAME_FROM = 0.25

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def paired_files(root: Path, globs: tuple[str, str]) -> list[tuple[Path, Path]]:
    """Pair the files of two globs in the order of their names.

    Raises:
        TrainingError: a glob matches nothing, or they match different numbers of files.
    """
    before, after = (sorted(root.glob(glob)) for glob in globs)
    if not before or len(before) != len(after):
        raise TrainingError(
            f"data.dates: {globs[0]!r} matches {len(before)} files under {root} and {globs[1]!r} {len(after)}. "
            "Give two globs that match the same places in the same order, and set data.root to where they count from."
        )
    return list(zip(before, after, strict=True))


def unchanged(before: Tensor, after: Tensor) -> Tensor:
    """Tell where two aligned pictures still show the same: what has been rebuilt is no positive.

    Compared are the directions of edges, which another season, sun or camera leaves alone (our choice; a colour says
    nothing). Per pixel with gradient (x, y), the double angle (x² - y², 2xy) / |(x, y)| is the same for an edge from
    dark to light and from light to dark; over a window, its correlation is the cosine of the two dates' fields.

    Args:
        before: uint8 ``[3, H, W]``.
        after: likewise.

    Returns:
        bool ``[H // 8, W // 8]``.
    """
    one, other = (_edges(picture) for picture in (before, after))
    both, first, second = ((a * b).sum(1, keepdim=True) for a, b in ((one, other), (one, one), (other, other)))
    both, first, second = (
        F.avg_pool2d(x, WINDOW_BLOCKS, stride=1, padding=WINDOW_BLOCKS // 2) for x in (both, first, second)
    )
    return (both / (first * second).sqrt().clamp(min=1e-6))[0, 0] >= SAME_FROM


def _edges(picture: Tensor) -> Tensor:
    """Edge directions in blocks, ``[1, 2, H // 8, W // 8]``; light or dark, near or far haze count the same."""
    grey = (picture.float() * torch.tensor(_LUMA)[:, None, None]).sum(0)[None, None]
    grey = F.avg_pool2d(grey, 5, stride=1, padding=2)
    x = F.pad(grey[..., 2:] - grey[..., :-2], (1, 1, 0, 0))
    y = F.pad(grey[..., 2:, :] - grey[..., :-2, :], (0, 0, 1, 1))
    length = torch.hypot(x, y).clamp(min=1e-3)
    double = torch.cat(((x * x - y * y) / length, 2 * x * y / length), dim=1)
    return F.avg_pool2d(double, BLOCK_PX)
