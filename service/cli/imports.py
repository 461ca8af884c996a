"""An import, followed on the terminal to its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from aerofix.async_client import AsyncClient
from aerofix.models import ImportState
from aerofix.options import ImportOptions
from aerofix.transport import ServiceError
from service.cli.terminal import complain, progress_bar, say, warn
from service.errors import AerofixError

SERVICE_IS_AT_FAULT = (
    *("unauthorized", "forbidden", "overloaded", "not-ready"),
    *("gallery-read-only", "gallery-unusable", "index-unavailable", "storage-full"),
)
"""Problems of these kinds have nothing to do with the map that was sent."""


async def add(client: AsyncClient, source: Path, corners: Path | None, **options: Unpack[ImportOptions]) -> ImportState:
    """Import a map; show how that comes along, and tell what is worth knowing of it.

    Returns:
        How it ended.

    Raises:
        AerofixError: see ``AsyncClient.send_map``.
    """
    sent = await client.send_map(source, corners, **options)
    told: set[str] = set()
    with progress_bar() as progress:
        task = progress.add_task(sent.name, total=sent.total)

        def watch(state: ImportState) -> None:
            progress.update(task, completed=state.done, total=state.total)
            _tell(state, told)

        state = await client.wait_for_import(sent.id, watch)
    counts = f"added {state.added}, updated {state.updated}, failed {state.failed}, skipped {state.skipped}"
    say(f"{state.name}: map {state.map}, {state.state}: {counts}")
    return state


def is_everybodys(error: AerofixError) -> bool:
    """Say whether the next map would meet the same error: it is that of the service, or no service answers."""
    return isinstance(error, ServiceError) and error.kind in (None, *SERVICE_IS_AT_FAULT)


def _tell(state: ImportState, told: set[str]) -> None:
    """Say what is new: warnings, what an import waits for or failed of, and windows that failed."""
    lines: list[tuple[Callable[[str], None], str]] = [(warn, warning) for warning in state.warnings]
    if state.problem is not None:
        detail = state.problem.detail
        lines.append((complain, detail if detail.startswith(state.name) else f"{state.name}: {detail}"))
    lines += [(complain, f"{each.item}: {each.problem.detail}") for each in state.problems]
    for tell, text in lines:
        if text not in told:
            told.add(text)
            tell(text)
