"""Mixed precision, the same in training and in evaluation."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Run what is inside in this precision; ``fp32`` leaves it as it is."""
    kind = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=kind, enabled=kind is not None)
