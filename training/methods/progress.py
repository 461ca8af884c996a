"""Progress of training, read off a falling loss: the coefficient of PALW (DPHR and CSP-HD)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: A reference loss below this leaves nothing to fall: progress is 1.
_NOTHING_LEFT = 1e-6


class ProgressSignal(nn.Module):
    """A coefficient λ that moves from ``start`` to ``end`` while a loss falls.

    ``L̄_t`` is the mean of the last W losses, ``L_ref`` the first such mean, and

    ``α̂_t = clip(1 - L̄_t / L_ref, 0, 1)``, ``λ^t = β λ^{t-1} + (1 - β) [start + (end - start) α̂_t]``, ``λ^0 = start``.

    Known in words is only that a moving average of recent losses drives an EMA-smoothed coefficient; the functions are
    our reconstruction. ``exp(-L̄)`` in place of the ratio would start near 0.7 for triplet losses and hardly move. DPHR
    grows (0 to λ_max), CSP-HD decays (λ_max to λ_min). Both begin at ``start``, where the recursion rests without
    progress: a decaying λ that began at 0 would spare the early phase, which it is there to penalise.

    λ stays at ``start`` until W losses were seen. No gradient passes. All memory lives in buffers, so that a checkpoint
    goes on as if it had never stopped.

    Args:
        start: λ without progress.
        end: λ when the loss has reached 0.
        window: W, steps.
        beta: β of the EMA, 0 to 1.
    """

    def __init__(self, start: float, end: float, *, window: int, beta: float) -> None:
        super().__init__()
        self.start, self.end, self.window, self.beta = start, end, window, beta
        self.recent = nn.Buffer(torch.zeros(window))  # the last losses, oldest first
        self.seen = nn.Buffer(torch.tensor(0))
        self.reference = nn.Buffer(torch.tensor(0.0))
        self.coefficient = nn.Buffer(torch.tensor(float(start)))

    def forward(self, loss: Tensor) -> Tensor:
        """Return λ ``[]``, after this step's loss ``[]`` has moved it; in evaluation nothing moves."""
        if self.training:
            self._update(loss.to(self.recent))
        return self.coefficient.clone()  # the buffer changes in place; a graph may outlive the step

    @torch.no_grad()
    def _update(self, loss: Tensor) -> None:
        self.recent.copy_(torch.cat((self.recent[1:], loss.reshape(1))))
        self.seen.add_(1)
        mean = self.recent.mean()
        self.reference.copy_(torch.where(self.seen == self.window, mean, self.reference))
        progress = (1 - mean / self.reference.clamp(min=_NOTHING_LEFT)).clamp(0, 1)
        progress = torch.where(self.reference > _NOTHING_LEFT, progress, 1)
        moved = self.beta * self.coefficient + (1 - self.beta) * (self.start + (self.end - self.start) * progress)
        self.coefficient.copy_(torch.where(self.seen >= self.window, moved, self.coefficient))
