"""Archives from strangers: what is harmless is read, everything else is refused by name."""

import errno
import io
import os
import stat
import struct
import zipfile
from contextlib import closing

import pytest

from service.errors import AerofixError, ArchiveRefused, ImageUndecodable, SourceUnreadable, StorageFull
from service.maps import archive
from service.maps.archive import Archive
from service.maps.mosaic import open_mosaic


@pytest.fixture
def zipped(tmp_path):
    """``zipped({name: bytes})`` writes a zip; a ``ZipInfo`` may stand for a name."""

    def write(entries, compression=zipfile.ZIP_DEFLATED, name="a.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as out:
            for entry, data in entries.items():
                out.writestr(entry, data)
        return tmp_path / name

    return write


def test_files_are_named_as_everywhere_and_clutter_is_ignored(zipped):
    path = zipped({"t/17/2/1.png": b"b", "t\\17\\1\\9.JPG": b"a", "t/": b"", "__MACOSX/t/x": b"y", ".DS_Store": b"z"})
    with closing(Archive(path)) as archive:
        assert list(archive.names) == ["t/17/1/9.JPG", "t/17/2/1.png"]
        assert archive.read("t/17/1/9.JPG") == b"a"
        assert archive.start("t/17/2/1.png", 1) == b"b"
        assert archive.start("gone", 1) is None


def test_gdal_gets_a_copy_that_has_no_name(zipped, tmp_path):
    path = zipped({"map.tif": bytes(range(256)) * 40})
    with closing(Archive(path)) as archive:
        with archive.on_disk("map.tif") as where, open(where, "rb") as copy:
            assert copy.read() == bytes(range(256)) * 40
            assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]
        assert not os.path.exists(where)


def test_a_full_disk_is_named(zipped, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with (
        closing(Archive(zipped({"map.tif": b"x"}))) as archive,
        pytest.raises(StorageFull, match="No space left"),
        archive.on_disk("map.tif"),
    ):
        pass


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def device(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFCHR | 0o666) << 16
    return info


REFUSED = {
    "a path out of it": ({"../../etc/17/1/1.png": b"x"}, "leads out of it"),
    "an absolute path": ({"/17/1/1.png": b"x"}, "leads out of it"),
    "a drive": ({"C:/17/1/1.png": b"x"}, "leads out of it"),
    "backslashes": ({"a\\..\\17/1/1.png": b"x"}, "leads out of it"),
    "a symbolic link": ({link("17/1/1.png"): b"/etc/passwd"}, "symbolic link"),
    "a device": ({device("17/1/1.png"): b""}, "not an ordinary file"),
    "a zip inside": ({"17/1/1.png": b"x", "more.zip": b"PK"}, "archive itself"),
    "a tarball inside": ({"17/1/1.png": b"x", "more.tar.gz": b""}, "archive itself"),
    "one name twice": ({"a/b.png": b"1", "a\\b.png": b"2"}, "in the zip twice"),
    "control characters": ({"a\u202eb.png": b"1"}, "plain names"),
    "a bomb": ({"17/1/1.png": bytes(10 * 2**20)}, "zip bombs"),
}


@pytest.mark.parametrize(("entries", "says"), REFUSED.values(), ids=REFUSED)
def test_what_could_do_harm_is_refused(zipped, entries, says):
    with pytest.raises(ArchiveRefused, match=says):
        Archive(zipped(entries))


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("MAX_ENTRIES", 2, "3 entries"),
        ("MAX_UNPACKED_BYTES", 2999, "unpacks to 3000 bytes"),
        ("MAX_ENTRY_BYTES", 999, "over the limit of 999"),
        ("MAX_DIRECTORY_BYTES", 100, "list of entries takes"),
    ],
)
def test_limits(zipped, monkeypatch, limit, value, says):
    path = zipped({f"17/1/{n}.png": bytes(range(250)) * 4 for n in range(3)})
    read_all(path)
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(ArchiveRefused, match=says):
        read_all(path)


def test_an_encrypted_entry_is_refused(zipped):
    path = zipped({"17/1/1.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveRefused, match="encrypted"):
        Archive(path)


def test_an_entry_that_lies_about_its_size_is_cut_off_and_named(zipped):
    """The list of entries says 10 bytes, deflate would give 100,000."""
    path = zipped({"17/1/1.png": bytes(100_000), "17/1/2.png": b"good"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)
    with closing(Archive(path)) as opened:
        with pytest.raises(ImageUndecodable, match=r"17/1/1\.png in the zip is damaged"):
            opened.read("17/1/1.png")
        with pytest.raises(ArchiveRefused, match=r"17/1/1\.png in the zip is damaged"), opened.on_disk("17/1/1.png"):
            pass
        assert opened.read("17/1/2.png") == b"good"


def test_overlapping_entries_are_refused_or_named(zipped):
    """Many entries in the list that share one piece of data, as in D. Fifield's bomb (2019)."""
    path = zipped({"17/1/1.png": b"x" * 500, "17/1/2.png": b"y" * 500}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # its data starts where the first's does
    path.write_bytes(data)
    with closing(Archive(path)) as opened, pytest.raises(ImageUndecodable):
        opened.read("17/1/2.png")


@pytest.mark.parametrize("data", [b"PK", b"PK\x03\x04 and nothing else", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_is_named(tmp_path, data):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises((ArchiveRefused, SourceUnreadable), match=r"damaged|holds no map"):
        open_mosaic(path).close()


def test_a_truncated_zip_is_named(zipped):
    path = zipped({"17/1/1.png": b"x" * 5000}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ArchiveRefused, match="damaged"):
        Archive(path)


def test_mutated_zips_raise_nothing_else(tmp_path):
    """One byte after the other becomes another: an error of ours, or an archive that can be read or says why not."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("17/1/1.png", b"image" * 10)
        file.writestr("t.csv", "file,west,south,east,north\n1.png,1,1,2,2\n")
    path, seen = tmp_path / "m.zip", set()
    for i in range(len(out.getvalue())):
        data = bytearray(out.getvalue())
        data[i] ^= 0xFF
        path.write_bytes(data)
        try:
            read_all(path)
        except AerofixError as error:
            seen.add(type(error))
    assert seen == {ArchiveRefused, ImageUndecodable}


def read_all(path):
    with closing(Archive(path)) as opened:
        for name in opened.names:
            opened.read(name)
