"""What the peers answer: the position and the candidates."""

from typing import Any


def place(answer: Any) -> dict[str, Any]:
    """Write an answer as JSON."""
    position = None if answer.position is None else vars(answer.position)
    candidates = [{"tile_id": hit.tile.id, "score": hit.score} for hit in answer.hits]
    return {"status": answer.verdict.status, "position": position, "candidates": candidates}
