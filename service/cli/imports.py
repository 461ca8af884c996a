"""An import, followed on the terminal to its end."""

import asyncio
from typing import Any

from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from service.cli.client import Client
from service.cli.common import err, out

POLL_S = 0.2
"""Between two looks at an import: often enough to see it move."""


async def follow(client: Client, state: dict[str, Any]) -> bool:
    """Show how an import comes along, and tell what is worth knowing of it; returns whether it came to its end."""
    told: set[str] = set()
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=err) as progress:
        task = progress.add_task(escape(state["name"]), total=state["total"])
        while True:
            progress.update(task, completed=state["done"], total=state["total"])
            _tell(state, told)
            if state["state"] not in ("queued", "running"):
                break
            await asyncio.sleep(POLL_S)
            state = await client.get_import(state["id"])
    counts = ", ".join(f"{name} {state[name]}" for name in ("added", "updated", "failed", "skipped"))
    out.print(f"{state['name']}: map {state['map']}, {state['state']}: {counts}", markup=False, highlight=False)
    return bool(state["state"] == "done" and not state["failed"])


def _tell(state: dict[str, Any], told: set[str]) -> None:
    """Say what is new: warnings, what an import waits for or failed of, and windows that failed."""
    lines = [("yellow", "warning", warning) for warning in state["warnings"]]
    if state["problem"] is not None:
        lines.append(("red", "error", f"{state['name']}: {state['problem']['detail']}"))
    lines += [("red", "error", f"{each['item']}: {each['problem']['detail']}") for each in state["problems"]]
    for colour, kind, text in lines:
        if text not in told:
            told.add(text)
            err.print(f"[{colour}]{kind}:[/] {escape(text)}", highlight=False, soft_wrap=True)
