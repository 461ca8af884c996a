"""A file of answers: written as they come, whole after each of them, gone on with when it exists."""

from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

from service.cli.answers import FORMATS, Answered, Format, FormatName
from service.errors import AerofixError


class ResultsUnusable(AerofixError):
    """A file of results cannot be written or gone on with."""


class Stream:
    """Writes answers to stdout.

    Args:
        form: see ``FORMATS``.
    """

    def __init__(self, form: Format) -> None:
        self.done: dict[str, str] = {}
        self._form, self._any = form, False

    def write(self, answered: Answered) -> None:
        """Add an answer."""
        form = self._form
        lead = form.between.removeprefix(form.after) if self._any else form.head
        self._put(lead + form.line(answered) + form.after)
        self._any = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        form = self._form
        self._put(form.foot.removeprefix(form.after) if self._any else form.empty)

    def _put(self, text: str) -> None:
        print(text, end="", flush=True)


class Results:
    """Writes answers to a file, which is whole after each of them.

    Attributes:
        done: the photos that the file had answers to, and their statuses.

    Args:
        path: the file; one that exists is gone on with.
        name: how they are written.

    Raises:
        ResultsUnusable: there is something in the file that was not written like this, or it cannot be written.
    """

    def __init__(self, path: Path, name: FormatName) -> None:
        self._path, self._form, self._end = path, FORMATS[name], 0
        try:
            kept = self._form.lines(path.read_bytes().decode(errors="replace") if path.exists() else "")
            self.done = dict(map(self._form.told, kept))
            path.touch()
            self._file = path.open("r+b")
        except OSError as error:
            raise self._unwritable(error) from error
        except (ValueError, KeyError, ElementTree.ParseError) as error:
            raise ResultsUnusable(
                f"{path} holds something that `aerofix localize` did not write as {name}; name another file."
            ) from error
        self._any = bool(kept)
        head, foot = self._form.head, self._form.foot if kept else self._form.empty.removeprefix(self._form.head)
        self._put(head + self._form.between.join(kept), foot)

    def write(self, answered: Answered) -> None:
        """Add an answer.

        Raises:
            ResultsUnusable: the file cannot be written any more.
        """
        lead = self._form.between if self._any else ""
        self._put(lead + self._form.line(answered), self._form.foot)
        self._any = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _put(self, text: str, foot: str) -> None:
        """Write ``text`` and the ``foot`` after it over the foot that is there, in one piece."""
        try:
            self._file.seek(self._end)
            self._file.write((text + foot).encode())
            self._file.truncate()
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error
        self._end += len(text.encode())  # where the foot begins

    def _unwritable(self, error: OSError) -> ResultsUnusable:
        return ResultsUnusable(f"{self._path} cannot be written: {error.strerror}.")
