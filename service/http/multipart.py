"""A form with one large file, written to the disk as it arrives.

The framework's own form parser spools files into the folder for temporary files, which may be memory or too small, and
they would have to be copied from there. python-multipart's ``FormParser`` sets no limit to a text field of such a form,
and writes files in the event loop.
"""

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.errors import InvalidParameter, MissingParameter, disk_error

MAX_FIELD_BYTES = 4096
MAX_FIELDS = 32


@dataclass
class Form:
    """What a form holds: its text fields, and the name of the file that was written."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    file_name: str | None = None


class _Reader:
    """Collects the parts of a form while the parser finds them."""

    def __init__(self, file_field: str, field_names: Collection[str]) -> None:
        self.form = Form()
        self.to_write: list[bytes] = []  # of the file, not yet on the disk
        self._file_field, self._names = file_field, field_names
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._field, self._value, self._is_file = "", bytearray(), False
        self._fields = 0

    def callbacks(self) -> dict[str, object]:
        """For the parser."""

        def on_header_field(data: bytes, start: int, end: int) -> None:
            self._header[0].extend(data[start:end])

        def on_header_value(data: bytes, start: int, end: int) -> None:
            self._header[1].extend(data[start:end])

        def on_header_end() -> None:
            if self._header[0].lower() == b"content-disposition":
                self._disposition = bytes(self._header[1])
            for part in self._header:
                part.clear()

        return {
            "on_part_begin": self._begin,
            "on_header_field": on_header_field,
            "on_header_value": on_header_value,
            "on_header_end": on_header_end,
            "on_headers_finished": self._name,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""
        self._value.clear()
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise InvalidParameter(f"the form has more than {MAX_FIELDS} fields.", limit=MAX_FIELDS)

    def _name(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field == self._file_field and b"filename" in options
        if self._is_file:
            if self.form.file_name is not None:
                raise InvalidParameter(f"give one {self._file_field} at a time.", limit=1)
            self.form.file_name = options[b"filename"].decode("utf-8", "replace")
        elif self._field not in self._names:
            wanted = ", ".join((f"{self._file_field} (a file)", *self._names))
            raise InvalidParameter(f"the form has a field {self._field!r:.50}; it takes {wanted}.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.to_write.append(data[start:end])
            return
        self._value.extend(data[start:end])
        if len(self._value) > MAX_FIELD_BYTES:
            raise InvalidParameter(f"{self._field} has more than {MAX_FIELD_BYTES} bytes.", limit=MAX_FIELD_BYTES)

    def _end(self) -> None:
        if not self._is_file:
            self.form.fields.setdefault(self._field, []).append(self._value.decode("utf-8", "replace"))


async def save_form(request: Request, file_field: str, field_names: Collection[str], path: Path) -> Form:
    """Read a multipart form with one file, which is on the disk when this returns.

    Args:
        request: its body has not been read.
        file_field: name of the file's field.
        field_names: of the text fields that there may be.
        path: where the file goes; the caller removes it when something is raised.

    Raises:
        MissingParameter: there is no file.
        InvalidParameter: a field is unknown or too long, or there is a second file.
        StorageFull, GalleryUnusable: the file cannot be written.
        HTTPException: the body is no such form (400).
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not (boundary := options.get(b"boundary")):
        raise MissingParameter(f"{file_field} must be given, in a multipart form; see /docs.")
    reader = _Reader(file_field, field_names)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]  # a TypedDict of callables
        with path.open("xb") as file:
            async for chunk in request.stream():
                parser.write(chunk)
                if reader.to_write:
                    await asyncio.to_thread(file.write, b"".join(reader.to_write))
                    reader.to_write.clear()
            parser.finalize()
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
    except FormParserError as error:
        raise HTTPException(400, f"The body is not a multipart form: {error}") from error
    except OSError as error:
        raise disk_error(error, "the upload cannot be written") from error
    if reader.form.file_name is None:
        raise MissingParameter(f"{file_field} must be given, as a file; see /docs.")
    return reader.form
