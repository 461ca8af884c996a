"""``aerofix doctor`` looks, and leaves everything as it is."""

import os
import shutil
import socket
from contextlib import closing

import pytest

from service.cli.doctor import examine
from service.ground.store.store import Store
from service.settings import Settings


@pytest.fixture
def settings(tmp_path, tiny_model):
    folder = tmp_path / "data"
    folder.mkdir()
    return Settings(model=tiny_model(tmp_path / "m.onnx"), gallery=folder / "g.gallery", device="cpu", threads=1)


def state(folder):
    """Names, contents and times of everything in a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def gallery_of(settings):
    return next(finding for finding in examine(settings) if finding.subject == "gallery")


def test_an_empty_gallery_is_not_claimed(settings):
    with closing(Store(settings.gallery)):
        pass
    before = state(settings.gallery.parent)
    finding = gallery_of(settings)
    assert finding.good
    assert "holds 0 windows and pictures" in finding.text
    assert state(settings.gallery.parent) == before
    with closing(Store(settings.gallery)) as store:
        assert store.identity is None


def test_nothing_is_made_where_there_is_none(settings):
    assert "none at" in gallery_of(settings).text
    assert os.listdir(settings.gallery.parent) == []


def test_an_empty_file_stays_empty(settings):
    settings.gallery.touch()
    finding = gallery_of(settings)
    assert not finding.good
    assert "is empty" in finding.text
    assert settings.gallery.stat().st_size == 0


def test_a_gallery_of_another_version_is_named_and_left_alone(settings):
    with closing(Store(settings.gallery)) as store:
        store.file.db.execute("PRAGMA user_version = 200")
    before = state(settings.gallery.parent)
    finding = gallery_of(settings)
    assert not finding.good
    assert "200" in finding.text
    assert state(settings.gallery.parent) == before


def test_a_gallery_that_is_in_use_is_told(settings):
    with closing(Store(settings.gallery)) as store:
        finding = gallery_of(settings)
        assert finding.good  # a service that runs is no fault
        assert "is in use, by a running service perhaps" in finding.text
        store.claim("still ours", 224)


def test_a_write_that_was_cut_off_is_told_and_left_to_the_service(settings):
    with closing(Store(settings.gallery)) as store:
        store.file.db.execute("PRAGMA cache_size = 1")
        with store.file.transaction() as db:
            db.execute("INSERT INTO meta VALUES ('large', zeroblob(100000))")
            for suffix in ("", "-journal"):
                path = settings.gallery.with_name(settings.gallery.name + suffix)
                shutil.copyfile(path, settings.gallery.with_name("cut.gallery" + suffix))
    before = state(settings.gallery.parent)
    finding = gallery_of(settings.model_copy(update={"gallery": settings.gallery.with_name("cut.gallery")}))
    assert not finding.good
    assert "was cut off; the next start of the service undoes it" in finding.text
    assert state(settings.gallery.parent) == before


def test_a_milvus_that_does_not_answer_is_named(settings):
    pytest.importorskip("pymilvus")
    with closing(Store(settings.gallery)):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    finding = gallery_of(settings.model_copy(update={"milvus_uri": f"http://127.0.0.1:{free}"}))
    assert not finding.good
    assert "AEROFIX_MILVUS_URI" in finding.text
