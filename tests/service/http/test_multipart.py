"""The streaming form reader against what clients may send, whole or byte by byte."""

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.errors import AerofixError, GalleryUnusable, InvalidParameter, MissingParameter, StorageFull
from service.http.multipart import MAX_FIELD_BYTES, save_form

BOUNDARY = b"xYzZY"
DATA = bytes(range(256)) * 40 + b"\r\n--xYzZ\r\n--" + b"\r\n"  # looks nearly like a boundary


def part(name, value, file_name=None):
    disposition = f'form-data; name="{name}"' + (f'; filename="{file_name}"' if file_name is not None else "")
    return b"--" + BOUNDARY + f"\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + value + b"\r\n"


END = b"--" + BOUNDARY + b"--\r\n"


def request(body, chunk=10_000, content_type="multipart/form-data; boundary=xYzZY"):
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]

    async def receive():
        sent = chunks.pop(0) if chunks else b""
        return {"type": "http.request", "body": sent, "more_body": bool(chunks)}

    return Request({"type": "http", "headers": [(b"content-type", content_type.encode())]}, receive)


@pytest.mark.parametrize("chunk", [1, 7, 1000, 10**6])
async def test_a_form_arrives_whole_however_it_is_cut(tmp_path, chunk):
    body = part("a", b"1") + part("file", DATA, "map.tif") + part("a", "zwei ü".encode()) + part("b", b"") + END
    form = await save_form(request(body, chunk), "file", ["a", "b"], tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == DATA
    assert (form.file_name, form.fields) == ("map.tif", {"a": ["1", "zwei ü"], "b": [""]})


BAD = {
    "no file": (part("a", b"1") + END, MissingParameter, "as a file"),
    "the file as text": (part("file", b"1") + END, InvalidParameter, "takes file"),
    "two files": (part("file", b"1", "x") + part("file", b"2", "y") + END, InvalidParameter, "one file at a time"),
    "an unknown field": (part("c", b"1") + END, InvalidParameter, "'c'"),
    "a long field": (part("a", b"1" * (MAX_FIELD_BYTES + 1)) + END, InvalidParameter, "4096 bytes"),
    "many fields": (part("a", b"1") * 40 + END, InvalidParameter, "32 fields"),
    "no part": (END, MissingParameter, "as a file"),
    "nothing": (b"", MissingParameter, "as a file"),
    "a part without a name": (b"--xYzZY\r\nX: y\r\n\r\nz\r\n" + END, InvalidParameter, "''"),
}


@pytest.mark.parametrize(("body", "error", "says"), BAD.values(), ids=BAD)
async def test_bad_forms(tmp_path, body, error, says):
    with pytest.raises(error, match=says):
        await save_form(request(body), "file", ["a", "b"], tmp_path / "f")


async def test_a_body_that_is_no_form(tmp_path):
    with pytest.raises(HTTPException) as caught:
        await save_form(request(b"--other\r\nwhat"), "file", [], tmp_path / "f")
    assert caught.value.status_code == 400
    for content_type in ("application/json", "multipart/form-data", ""):
        with pytest.raises(MissingParameter):
            await save_form(request(b"{}", content_type=content_type), "file", [], tmp_path / "g")


LONG = {
    "a boundary": (b"", "x" * 300),
    "a header of a part": (part("file", b"1", "x" * 100_000) + END, "xYzZY"),
    "the headers of a part": (b"--xYzZY\r\n" + b"X: y\r\n" * 10_000 + b"\r\nz\r\n" + END, "xYzZY"),
}


@pytest.mark.parametrize(("body", "boundary"), LONG.values(), ids=LONG)
async def test_what_is_too_long_around_the_parts_is_no_form(tmp_path, body, boundary):
    long = request(body, content_type=f"multipart/form-data; boundary={boundary}")
    with pytest.raises(HTTPException) as caught:
        await save_form(long, "file", [], tmp_path / "f")
    assert caught.value.status_code == 400


class FullDisk:
    """An open file on a disk without space."""

    def __init__(self, error):
        self.error = error

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def write(self, data):
        raise self.error


@pytest.mark.parametrize(("code", "kind"), [(28, StorageFull), (30, GalleryUnusable)])
async def test_a_disk_that_takes_nothing(tmp_path, monkeypatch, code, kind):
    monkeypatch.setattr("pathlib.Path.open", lambda *unused: FullDisk(OSError(code, "no")))
    with pytest.raises(kind) as caught:
        await save_form(request(part("file", DATA, "x") + END), "file", [], tmp_path / "f")
    assert isinstance(caught.value, AerofixError)
    assert str(tmp_path) not in caught.value.detail
