import re

import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from training.checkpoint import load_encoder, write_encoder
from training.config import WhitenConfig
from training.errors import TrainingError
from training.models.encoder import Encoder
from training.models.heads import VLAD
from training.whitening import Pairs, centres_of, fit_spots, principal, solve, whiten


def pairs_of(rng, count=4000, noise=(5.0, 0.03, 5.0, 0.03, 0.03, 5.0)):
    """Six features, equally wide; what a place has is seen well in the second, fourth and fifth alone."""
    place = rng.normal(size=(count, 6))
    seen = [place + np.array(noise) * rng.normal(size=(count, 6)) for _ in range(2)]
    return Pairs(seen[0] + 7.0, seen[1] + 7.0)


def embed(rows, weight, bias):
    vectors = rows @ weight.T + bias
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def recall_at_1(pairs, weight, bias):
    scores = embed(pairs.photo, weight, bias) @ embed(pairs.tile, weight, bias).T
    return (scores.argmax(1) == np.arange(len(scores))).mean()


def test_what_moves_between_photo_and_tile_counts_for_little():
    rng = np.random.default_rng(0)
    weight, bias = solve(pairs_of(rng), 4, 3, WhitenConfig(shrink=1e-4))
    shares = np.abs(weight).sum(0) / np.abs(weight).sum()
    assert shares[[1, 3, 4]].sum() > 0.9
    few = Pairs(*(rows[:50] for rows in (lambda p: (p.photo, p.tile))(pairs_of(rng))))
    assert recall_at_1(few, weight, bias) > 0.5 > recall_at_1(few, np.eye(6), np.full(6, -7.0))


def test_without_shrinking_it_solves_the_generalised_eigenproblem():
    """Independent: the best directions maximise variance between tiles over that within pairs (Fisher)."""
    pairs = pairs_of(np.random.default_rng(1), noise=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0))
    weight, _ = solve(pairs, 4, 3, WhitenConfig(shrink=0.0))
    gap, tiles = pairs.photo - pairs.tile, pairs.tile - pairs.tile.mean(0)
    _, directions = eigh(tiles.T @ tiles, gap.T @ gap)
    theirs = directions[:, ::-1][:, :3].T
    for ours, expected in zip(weight, theirs, strict=True):
        cosine = ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)
        assert abs(cosine) == pytest.approx(1, abs=1e-6)


def test_spots_keep_their_principal_directions():
    rows = np.random.default_rng(0).normal(size=(5000, 4)) * [3.0, 1.0, 0.1, 2.0]
    found = principal(rows, 2)
    assert np.abs(found).argmax(0).tolist() == [0, 3]
    variances = np.array([9.0, 4.0])
    np.testing.assert_allclose((rows @ found).var(0), variances / (variances + 0.1 * 4.0), rtol=0.1)


def test_centres_lie_where_the_spots_do():
    rng = np.random.default_rng(0)
    middles = np.eye(3)
    spots = np.repeat(middles, 100, axis=0) + 0.05 * rng.normal(size=(300, 3))
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    centres = centres_of(spots, 3, np.random.default_rng(3))
    assert ((centres @ middles.T) > 0.99).any(1).all()
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1)


@torch.no_grad()
def test_the_spots_of_a_vlad_are_whitened():
    rng = np.random.default_rng(0)
    spots = rng.normal(size=(3000, 5)) * [4.0, 3.0, 2.0, 1.0, 0.5] + 10
    vlad = VLAD(5, 3, 4)
    fit_spots(vlad, spots, rng)
    reduced = vlad.reduce(torch.from_numpy(spots).float().T[None, :, :, None])[0, :, :, 0].numpy()
    np.testing.assert_allclose(np.cov(reduced), np.eye(3), atol=1e-3)
    torch.testing.assert_close(vlad.centres.norm(dim=1), torch.ones(4))


def test_too_few_pairs_are_refused():
    pairs = Pairs(np.zeros((5, 6)), np.zeros((5, 6)))
    with pytest.raises(TrainingError, match="take more"):
        solve(pairs, 4, 5, WhitenConfig())


# --- the run -------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tiny_config, tmp_path):
    """An encoder with a plain embedding to start from, and the config that whitens it."""
    start = tmp_path / "start.pt"
    plain = tiny_config(optim={"batch_pairs": 4})
    torch.manual_seed(3)
    write_encoder(Encoder(plain.model), start, plain)
    model = {"aggregation": "gem_vlad", "vlad_dim": 4, "vlad_centres": 3, "embedding_dim": 8, "start": start}
    return tiny_config(
        model=model, optim={"batch_pairs": 4}, whiten={"pairs": 20, "spot_dims": 5}, run={"out": tmp_path / "whitened"}
    )


def test_a_run_writes_an_encoder_on_the_same_backbone(config):
    checkpoint, report = whiten(config)
    encoder, settings = load_encoder(checkpoint)
    assert settings.model.aggregation == "gem_vlad"
    assert settings.method_name.endswith("+whitened")
    (line,) = report
    assert re.fullmatch(r"20 pairs of \d+ places", line)
    before, _ = load_encoder(config.model.start)
    for name, weight in before.backbone.state_dict().items():
        torch.testing.assert_close(encoder.backbone.state_dict()[name], weight)
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images).norm(dim=1), torch.ones(2))


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(config, tmp_path):
    whole = load_encoder(whiten(config)[0])[0].state_dict()
    for number in (1, 3):
        (config.run.out / f"features{number}.npy").unlink()
    again = load_encoder(whiten(config)[0])[0].state_dict()
    for name, weight in whole.items():
        torch.testing.assert_close(again[name], weight, msg=name)


@pytest.mark.parametrize("section", ["whiten", "model"])
def test_what_is_missing_is_named(tiny_config, section):
    given = {"whiten": {"whiten": {}}, "model": {"model": {"aggregation": "gem_vlad"}}}[section]
    with pytest.raises(TrainingError, match=r"a section whiten, .*gem_vlad and model\.start=FILE"):
        whiten(tiny_config(**given))
