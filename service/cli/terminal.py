"""What the commands write: text as it is, whoever wrote it, and nothing in it that steers the terminal."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text

from service.text import visible

UNFOLDED = 100_000
"""What is no terminal has so many columns, so that rows of a table stay whole on their line."""


class _PlainConsole(Console):
    """A console on which strings, in tables too, are no markup and no names of emoji, and stay on their line."""

    def render_str(self, text: str, **options: Any) -> Text:
        """See ``Console.render_str``; all strings pass here on their way out."""
        return super().render_str(visible(text), **options | {"markup": False, "emoji": False, "highlight": False})


out = _PlainConsole(width=None if sys.stdout.isatty() else UNFOLDED)
err = _PlainConsole(stderr=True)


def say(text: str) -> None:
    """Write a line to stdout."""
    out.print(text, soft_wrap=True)


def remark(text: str) -> None:
    """Write a line to stderr, beside the result."""
    err.print(text, soft_wrap=True)


def complain(reason: str) -> None:
    """Write a line about an error to stderr."""
    err.print(Text.assemble(("error:", "red"), " ", visible(reason)), soft_wrap=True)


def warn(text: str) -> None:
    """Write a line to stderr about what does not stop the command."""
    err.print(Text.assemble(("warning:", "yellow"), " ", visible(text)), soft_wrap=True)


def say_json(value: Any, indent: int | None = 2) -> None:
    """Write a value to stdout as JSON."""
    lines = json.dumps(value, indent=indent, ensure_ascii=False).split("\n")  # those in strings are escaped already
    print(*map(visible, lines), sep="\n")


def progress_bar(shown: bool = True) -> Progress:
    """Make a bar on stderr for tasks with a name, which is shown as it is; what goes to stdout goes there."""
    columns = (_Name(), *Progress.get_default_columns()[1:], MofNCompleteColumn())
    return Progress(*columns, console=err, disable=not shown, redirect_stdout=sys.stdout.isatty())


class _Name(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(visible(task.description))
