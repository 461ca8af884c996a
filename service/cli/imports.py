"""An import, followed on the terminal to its end."""

import asyncio
from collections.abc import Callable
from typing import Any

from service.cli.client import Client
from service.cli.terminal import complain, progress_bar, say, warn

POLL_S = 0.2
"""Between two looks at an import: often enough to see it move."""


async def follow(client: Client, state: dict[str, Any]) -> bool:
    """Show how an import comes along, and tell what is worth knowing of it; returns whether it came to its end."""
    told: set[str] = set()
    with progress_bar() as progress:
        task = progress.add_task(state["name"], total=state["total"])
        while True:
            progress.update(task, completed=state["done"], total=state["total"])
            _tell(state, told)
            if state["state"] not in ("queued", "running"):
                break
            await asyncio.sleep(POLL_S)
            state = await client.get_import(state["id"])
    counts = ", ".join(f"{name} {state[name]}" for name in ("added", "updated", "failed", "skipped"))
    say(f"{state['name']}: map {state['map']}, {state['state']}: {counts}")
    return bool(state["state"] == "done" and not state["failed"])


def _tell(state: dict[str, Any], told: set[str]) -> None:
    """Say what is new: warnings, what an import waits for or failed of, and windows that failed."""
    lines: list[tuple[Callable[[str], None], str]] = [(warn, warning) for warning in state["warnings"]]
    if state["problem"] is not None:
        lines.append((complain, f"{state['name']}: {state['problem']['detail']}"))
    lines += [(complain, f"{each['item']}: {each['problem']['detail']}") for each in state["problems"]]
    for tell, text in lines:
        if text not in told:
            told.add(text)
            tell(text)
