"""Archives from strangers: what is harmless is read, everything else is refused by name."""

import io
import stat
import struct
import zipfile
from contextlib import closing

import pytest

from service.errors import AerofixError, ArchiveRefused, ImageUndecodable, InvalidParameter, SourceUnreadable
from service.maps import archive
from service.maps.archive import open_zip


@pytest.fixture
def zipped(tmp_path):
    """``zipped({name: bytes})`` writes a zip; a ``ZipInfo`` may stand for a name."""

    def write(entries, compression=zipfile.ZIP_DEFLATED, name="a.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as out:
            for entry, data in entries.items():
                out.writestr(entry, data)
        return tmp_path / name

    return write


def test_a_pyramid_is_read_in_order_and_clutter_is_ignored(zipped):
    path = zipped({"t/17/2/1.png": b"b", "t/17/1/9.JPG": b"a", "t/readme.txt": b"x", "__MACOSX/t/17/1/9.jpg": b"y"})
    source = open_zip(path, "town")
    assert [source.read(i).image for i in range(len(source))] == [b"a", b"b"]
    assert source.read(1).entry == {"id": "town/17/2/1", "z": 17, "x": 2, "y": 1}
    source.close()


def test_a_table_finds_its_images_below_its_own_folder(zipped):
    table = b"Filename,Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long\na.png,2,1,1,2\n"
    source = open_zip(zipped({"set/tiles.csv": table, "set/images/a.png": b"image"}), "p")
    assert source.read(0).image == b"image"
    assert source.read(0).entry == {"id": "p/images/a", "bounds": [1.0, 1.0, 2.0, 2.0]}
    source.close()


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
    "two tables": ({"a.csv": b"", "b.csv": b""}, "2 CSV files"),
    "a bomb": ({"17/1/1.png": bytes(10 * 2**20)}, "zip bombs"),
}


@pytest.mark.parametrize(("entries", "says"), REFUSED.values(), ids=REFUSED)
def test_what_could_do_harm_is_refused(zipped, entries, says):
    with pytest.raises(ArchiveRefused, match=says):
        open_zip(zipped(entries), "p")


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
    open_zip(path, "p").close()
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(ArchiveRefused, match=says):
        open_zip(path, "p")


def test_an_encrypted_entry_is_refused(zipped):
    path = zipped({"17/1/1.png": b"x"})
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveRefused, match="encrypted"):
        open_zip(path, "p")


def test_an_entry_that_lies_about_its_size_is_cut_off_and_named(zipped):
    """The list of entries says 10 bytes, deflate would give 100,000."""
    path = zipped({"17/1/1.png": bytes(100_000), "17/1/2.png": b"good"})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 24, 10)
    path.write_bytes(data)
    source = open_zip(path, "p")
    with pytest.raises(ImageUndecodable, match=r"17/1/1\.png in the zip is damaged"):
        source.read(0)
    assert source.read(1).image == b"good"
    source.close()


def test_overlapping_entries_are_refused_or_named(zipped):
    """Many entries in the list that share one piece of data, as in D. Fifield's bomb (2019)."""
    path = zipped({"17/1/1.png": b"x" * 500, "17/1/2.png": b"y" * 500}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # its data starts where the first's does
    path.write_bytes(data)
    source = open_zip(path, "p")
    with pytest.raises(ImageUndecodable):
        source.read(1)
    source.close()


@pytest.mark.parametrize("data", [b"PK", b"PK\x03\x04 and nothing else", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_zip_is_named(tmp_path, data):
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    with pytest.raises((ArchiveRefused, SourceUnreadable), match=r"damaged|no tiles"):
        open_zip(path, "p")


def test_a_truncated_zip_is_named(zipped):
    path = zipped({"17/1/1.png": b"x" * 5000}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ArchiveRefused, match="damaged"):
        open_zip(path, "p")


def test_mutated_zips_raise_nothing_else(tmp_path, zipped):
    """One byte after the other becomes another: an error of ours, or a source that can be read or says why not."""
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
            with closing(open_zip(path, "p")) as source:
                for n in range(len(source)):
                    source.read(n)
        except AerofixError as error:
            seen.add(type(error))
    assert seen == {ArchiveRefused, SourceUnreadable, ImageUndecodable, InvalidParameter}
