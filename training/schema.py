"""Bounds that several sections of the config share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

#: Unknown keys are errors: a misspelt knob would otherwise be a silent default.
STRICT = ConfigDict(extra="forbid")


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("give the smaller number first")
    return pair


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
#: For pairs: ``Annotated[tuple[Positive, Positive], Ordered]``.
Ordered = AfterValidator(_ordered)
