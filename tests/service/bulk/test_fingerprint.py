"""Fingerprints of sources: the same for copies, another for what is not the same."""

import os
import shutil

import pytest

from service.bulk.fingerprint import SAMPLE_BYTES, SAMPLES, fingerprint
from service.errors import SourceUnreadable

ELSEWHERE = "out"


@pytest.fixture
def of(tmp_path):
    return lambda source: fingerprint(source, tmp_path / ELSEWHERE)


def test_a_copy_has_the_same(of, tmp_path):
    (tmp_path / "one.tif").write_bytes(os.urandom(1000))
    shutil.copy(tmp_path / "one.tif", tmp_path / "other.tif")
    os.utime(tmp_path / "other.tif", (1, 1))
    assert of(tmp_path / "one.tif") == of(tmp_path / "other.tif")


@pytest.mark.parametrize("at", [0, 70_000, 199_999])
def test_every_byte_of_a_small_file_counts(of, tmp_path, at):
    data = bytearray(os.urandom(200_000))
    (tmp_path / "one.tif").write_bytes(data)
    before = of(tmp_path / "one.tif")
    data[at] ^= 1
    (tmp_path / "one.tif").write_bytes(data)
    assert of(tmp_path / "one.tif") != before


def test_a_large_file_is_read_in_part_but_from_end_to_end(of, tmp_path):
    length = 3 * SAMPLES * SAMPLE_BYTES
    path = tmp_path / "large.tif"
    seen = set()
    for part in (0, length // 2, length - 1, None):
        with path.open("wb") as file:
            file.truncate(length)
            if part is not None:
                for at in {part, max(0, part - 2 * SAMPLE_BYTES)}:
                    file.seek(at)
                    file.write(b"x" * min(3 * SAMPLE_BYTES, length - at))
        seen.add(of(path))
    assert len(seen) == 4


def test_files_of_a_folder_count_with_their_names_and_not_what_is_made_of_them(of, tmp_path):
    folder = tmp_path / "tiles"
    (folder / "3").mkdir(parents=True)
    for name in ("3/1.png", "3/2.png", "empty.txt"):
        (folder / name).write_bytes(b"" if name == "empty.txt" else os.urandom(50))
    before = of(folder)
    made = folder / ELSEWHERE
    made.mkdir()
    (made / "shard.parquet").write_bytes(b"made")
    assert fingerprint(folder, made) == before
    (folder / "3/2.png").rename(folder / "3/3.png")
    assert fingerprint(folder, made) != before


@pytest.mark.parametrize("ending", ["csv", "kml"])
def test_pictures_that_a_table_names_count(of, tmp_path, ending):
    table, picture = tmp_path / f"corners.{ending}", tmp_path / "a.png"
    table.write_text("a.png")
    picture.write_bytes(b"one")
    before = of(table)
    (tmp_path / "notes.txt").write_text("nothing to do with it")
    assert of(table) == before
    picture.write_bytes(b"two")
    assert of(table) != before


def test_a_file_that_is_gone_is_named(of, tmp_path):
    with pytest.raises(SourceUnreadable, match=r"gone\.tif cannot be read"):
        of(tmp_path / "gone.tif")
