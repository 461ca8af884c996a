"""A gallery is embedded again from what it keeps: whole or not at all, and on from where it was killed."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from service.encoder.session import Encoder
from service.errors import GalleryInUse, GalleryUnusable, StorageFull
from service.ground.gallery import Gallery
from service.ground.records import NewTile
from service.ground.store.copies import verify
from service.ground.store.reembed import Reembedding
from service.ground.store.store import Store
from service.ground.tile import Footprint, Tile
from service.importing.reembed import reembed
from service.importing.tiles import model_input
from service.settings import Settings


@pytest.fixture
def models(tmp_path, tiny_model):
    return [tiny_model(tmp_path / f"{seed}.onnx", seed=seed) for seed in (0, 1)]


@pytest.fixture
def settings(tmp_path, models):
    return Settings(gallery=tmp_path / "g.gallery", model=models[1], device="cpu", threads=1)


@pytest.fixture
def filled(settings, models, ground, encode_image):
    """100 tiles of the first model, as the service would have made them."""
    encoder = Encoder(models[0], "cpu", 1)
    contract = encoder.contract
    images = [encode_image(ground(n, 40, 40), "JPEG") for n in range(100)]
    embeddings = encoder.encode(np.stack([model_input(image, contract, 10**6) for image in images])).embedding
    with Gallery.open(settings.gallery, contract.identity, contract.embedding_dim) as gallery:
        gallery.upsert(
            [
                NewTile(Tile(f"t{n}", Footprint.from_centre(1, n / 100, 1, 40, 40), {"n": n}), embedding, image)
                for n, (image, embedding) in enumerate(zip(images, embeddings, strict=True))
            ]
        )
    return images


def stored(settings):
    with closing(Store(settings.gallery)) as store:
        verify(store)
        rows = list(store.load())
        return store.identity, [row.tile for row in rows], np.stack([row.embedding for row in rows])


def test_all_embeddings_become_those_of_the_other_model(settings, filled):
    _, tiles, _ = stored(settings)
    seen = []
    result = reembed(settings, lambda done, total: seen.append((done, total)))
    encoder = Encoder(settings.model, "cpu", 1)
    expected = encoder.encode(np.stack([model_input(image, encoder.contract, 10**6) for image in filled])).embedding
    identity, same_tiles, embeddings = stored(settings)
    assert identity == encoder.contract.identity
    assert same_tiles == tiles
    np.testing.assert_allclose(embeddings, expected, atol=1e-3)
    assert (result.tiles, result.small) == (100, 0)
    assert seen == [(0, 100), (64, 100), (100, 100)]
    with Gallery.open(settings.gallery, identity, 32) as gallery:
        assert gallery.search(expected[7:8], 1)[0][0].tile.id == "t7"


def test_all_settings_of_the_device_count(settings, filled, monkeypatch):
    seen, real = [], Encoder.of
    monkeypatch.setattr(Encoder, "of", lambda chosen: seen.append(chosen) or real(chosen))
    reembed(settings, lambda done, total: None)
    assert seen == [settings]


def test_a_model_with_local_descriptors_gives_them_to_all_tiles(settings, filled, tiny_model, tmp_path):
    chosen = settings.model_copy(update={"model": tiny_model(tmp_path / "local.onnx", seed=2, local=True)})
    reembed(chosen, lambda done, total: None)
    encoder = Encoder(chosen.model, "cpu", 1)
    expected = encoder.encode(np.stack([model_input(image, encoder.contract, 10**6) for image in filled])).local
    identity, _, _ = stored(chosen)
    with Gallery.open(settings.gallery, identity, 32) as gallery:
        hits = gallery.search(np.eye(32, dtype=np.float32)[:1], 100)[0]
        maps = gallery.local_maps(sorted(hits, key=lambda hit: hit.tile.properties["n"]))
    assert np.abs(np.stack(maps) / 127 - expected).max() <= 0.5 / 127 + 1e-6
    reembed(settings, lambda done, total: None)  # and one without takes them away
    identity, _, _ = stored(settings)
    with Gallery.open(settings.gallery, identity, 32) as gallery:
        assert gallery.local_maps(hits) == [None] * 100


def test_with_its_own_model_nothing_changes(settings, models, filled):
    _, _, before = stored(settings)
    reembed(settings.model_copy(update={"model": models[0]}), lambda done, total: None)
    np.testing.assert_array_equal(stored(settings)[2], before)


def test_a_killed_run_leaves_the_gallery_as_it_was_and_is_gone_on_with(settings, models, filled):
    code = """
import os, signal, sys
from pathlib import Path
from service.importing.reembed import reembed
from service.settings import Settings
def kill(done, total):
    if done == 64:
        os.kill(os.getpid(), signal.SIGKILL)
reembed(Settings(gallery=Path(sys.argv[1]), model=Path(sys.argv[2]), device="cpu"), kill)
"""
    before = stored(settings)
    command = [sys.executable, "-c", code, str(settings.gallery), str(settings.model)]
    assert subprocess.run(command, check=False).returncode == -9
    identity, tiles, embeddings = stored(settings)
    assert (identity, tiles) == before[:2]
    np.testing.assert_array_equal(embeddings, before[2])
    seen = []
    reembed(settings, lambda done, total: seen.append(done))
    assert seen == [64, 100]
    assert stored(settings)[0] == Encoder(settings.model, "cpu", 1).contract.identity


def test_a_tile_that_changed_since_is_embedded_again(settings, filled):
    """After an interrupted run, the service went on with the old model and replaced a tile."""
    with closing(Store(settings.gallery)) as store:
        work = Reembedding(store, "new", 224)
        work.put([1, 2], np.ones((2, 4), np.float16))
        row = next(store.load())
        store.upsert([(row.tile, row.embedding, filled[1])])
        store.delete(["t1"])
        assert work.counts() == (0, 99)
        with pytest.raises(ValueError, match="not every picture"):
            work.finish({})
    assert stored(settings)[0] != "new"


def test_another_model_starts_over(settings, filled):
    with closing(Store(settings.gallery)) as store:
        Reembedding(store, "one", 224).put([1], np.ones((1, 4), np.float16))
        assert Reembedding(store, "one", 224).counts() == (1, 100)
        assert Reembedding(store, "two", 224).counts() == (0, 100)


def test_images_smaller_than_the_model_looks_at_are_counted(settings, models, filled):
    with Gallery.open(settings.gallery, Encoder(models[0], "cpu", 1).contract.identity, 32) as gallery:
        small = Image.new("RGB", (20, 20), (9, 99, 0))
        small.save(settings.gallery.with_name("s.jpg"))
        image = settings.gallery.with_name("s.jpg").read_bytes()
        gallery.upsert(
            [NewTile(Tile("s", Footprint.from_centre(1, 1, 1, 20, 20)), np.eye(32, dtype=np.float32)[0], image)]
        )
    assert reembed(settings, lambda done, total: None).small == 1


def test_a_damaged_image_is_named(settings, filled):
    with closing(Store(settings.gallery)) as store:
        store.file.db.execute("UPDATE details SET image = x'ffd8ff' WHERE number = 70")
    with pytest.raises(GalleryUnusable, match="image of row 70"):
        reembed(settings, lambda done, total: None)


def test_a_gallery_in_use_is_left_alone(settings, filled):
    with closing(Store(settings.gallery)), pytest.raises(GalleryInUse):
        reembed(settings, lambda done, total: None)


def test_a_full_disk_leaves_the_old_embeddings(settings, filled, monkeypatch):
    before = stored(settings)

    def full(self, *arguments):
        self._file.db.execute(f"PRAGMA max_page_count = {self._file.one('PRAGMA page_count')}")
        return put(self, *arguments)

    put = Reembedding.put
    monkeypatch.setattr(Reembedding, "put", full)
    with pytest.raises(StorageFull):
        reembed(settings, lambda done, total: None)
    identity, tiles, embeddings = stored(settings)
    assert (identity, tiles) == before[:2]
    np.testing.assert_array_equal(embeddings, before[2])
