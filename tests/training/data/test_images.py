from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from training.data.images import FilePairs, ImageFiles, read_image
from training.errors import TrainingError


def settings(image_size=16, resize="squash"):
    return SimpleNamespace(image_size=image_size, resize=resize)


@pytest.fixture
def picture(tmp_path):
    """40 by 20 px of noise, lossless."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png", pixels


def test_squash_keeps_the_whole_image(picture):
    path, pixels = picture
    expected = Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(read_image(path, settings()), expected)


def test_center_crop_keeps_the_middle_square(picture):
    path, pixels = picture
    expected = Image.fromarray(pixels[:, 10:30]).resize((16, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(read_image(path, settings(resize="center_crop")), expected)


def test_an_image_of_the_right_size_is_as_in_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    files = ImageFiles([tmp_path / "a.tif"], np.zeros(1, np.int64), settings(), tmp_path)
    np.testing.assert_array_equal(files.load([0])[0].permute(1, 2, 0).mul(255).round().byte(), pixels)
    assert (len(files), files.name) == (1, ["a.tif"])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (30, 30), (204, 204, 204)).convert(mode).save(path)
    np.testing.assert_allclose(np.array(read_image(path, settings())), 204, atol=3)


def test_large_jpegs_decoded_small_look_the_same(tmp_path):
    """A soft picture at eight times the size: the decoder's own reduction may differ by little."""
    coarse = np.random.default_rng(2).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)
    large.save(tmp_path / "a.jpg", quality=98)
    expected = np.asarray(large.resize((16, 16), Image.Resampling.BICUBIC), float)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg", settings()), float) - expected).mean() < 2


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken", b"\xff\xd8\xff\xe0 cut"])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.jpg is not a readable picture"):
        read_image(tmp_path / "a.jpg", settings())


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_truncated_files_are_named(tmp_path, name):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1500])
    with pytest.raises(TrainingError, match=f"{name} is not a readable picture"):
        read_image(tmp_path / name, settings())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"gone\.png is not a readable picture"):
        read_image(tmp_path / "gone.png", settings())


def test_pairs_are_a_function_of_the_generator(picture):
    path, _ = picture
    pairs = FilePairs([path] * 3, [path] * 3, np.arange(3), 3, settings(), offset_m=np.full((3, 2), (3.0, 4.0)))
    first, again, other = (pairs.load([2, 0], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.photo, again.photo)
    assert torch.equal(first.tile, again.tile)
    assert torch.equal(first.offset_m, again.offset_m)
    assert not torch.equal(first.tile, other.tile)
    assert first.place.tolist() == [2, 0]
    np.testing.assert_allclose(first.offset_m.norm(dim=1), 5.0, rtol=1e-6)


def test_loading_leaves_the_offsets_alone(picture):
    path, _ = picture
    offset_m = np.full((1, 2), (3.0, 4.0))
    pairs = FilePairs([path], [path], np.zeros(1, np.int64), 1, settings(), offset_m=offset_m)
    for seed in range(5):
        pairs.load([0], torch.Generator().manual_seed(seed))
    assert offset_m.tolist() == [[3.0, 4.0]]
