"""Answers of the service, made readable on a terminal or joined for a map."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from aerofix.transport import ServiceError


def table(answers: Sequence[dict[str, Any]], photos: Sequence[str]) -> Table:
    """One row a photo: status, position, accuracy, confidence."""
    result = Table("photo", "status", "lat", "lon", "± m", "confidence", box=None, pad_edge=False)
    result.columns[0].overflow = "fold"
    for photo, answer in zip(photos, answers, strict=True):
        position = answer.get("position")
        cells = ["-"] * 4
        if position is not None:
            cells = [
                f"{position['lat']:.6f}",  # a tenth of a metre
                f"{position['lon']:.6f}",
                f"{position['accuracy_m']:.1f}",
                f"{position['confidence']:.2f}",
            ]
        result.add_row(photo, answer["status"], *cells)
    return result


def merge(answers: Sequence[dict[str, Any]], photos: Sequence[str]) -> dict[str, Any]:
    """Join FeatureCollections of single photos; each feature's property ``photo`` becomes the photo's name."""
    features = []
    results = []
    for photo, answer in zip(photos, answers, strict=True):
        for feature in answer.get("features", []):
            features.append(feature | {"properties": feature["properties"] | {"photo": photo}})
        members = {key: value for key, value in answer.items() if key not in ("type", "features")}
        results.append({"photo": photo} | members)
    return {"type": "FeatureCollection", "features": features, "results": results}


def problem_of(error: ServiceError) -> dict[str, Any]:
    """What went wrong with a photo, as JSON."""
    return {"detail": error.detail} if error.problem is None else error.problem.model_dump(exclude_none=True)
