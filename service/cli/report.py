"""Answers of the service, made readable on a terminal."""

from collections.abc import Sequence

from rich.table import Table

from service.cli.answers import Answered


def table(answers: Sequence[Answered]) -> Table:
    """Return one row a photo: status, position, accuracy, confidence."""
    result = Table("photo", "status", "lat", "lon", "± m", "confidence", box=None, pad_edge=False)
    result.columns[0].overflow = "fold"
    for answered in answers:
        cells = ["-"] * 4
        if (position := answered.position) is not None:
            cells = [
                f"{position.lat:.6f}",  # a tenth of a metre
                f"{position.lon:.6f}",
                f"{position.accuracy_m:.1f}",
                f"{position.confidence:.2f}",
            ]
        result.add_row(answered.name, answered.status, *cells)
    return result
