import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import strategies as st
from made_features import NAN, SHAPE, batch_of, features, seeded, unit

from training.batch import Features
from training.config import ModelConfig
from training.errors import TrainingError
from training.methods.losses import info_nce
from training.methods.unifygeo import (
    UnifyGeo,
    UnifyGeoConfig,
    collapse,
    local_scores,
    locate,
    matching_map,
    rerank_loss,
)
from training.models.encoder import Encoder

SHARES = st.floats(-0.5, 0.5)


# --- the method --------------------------------------------------------------------------------------------------


def make(**knobs):
    torch.manual_seed(0)
    return UnifyGeo(UnifyGeoConfig(**knobs), SHAPE).double()


OFFSETS = [[10.0, -20.0], [NAN, NAN], [0.0, 39.0], [60.0, 0.0]]


def test_the_loss_is_its_weighted_sum():
    views, batch = {"photo": features(4, 0), "tile": features(4, 1)}, batch_of(OFFSETS)
    method = make(matching_weight=0.5, heatmap_weight=0.25, rerank_weight=2.0)
    parts = method(views, batch)
    assert set(parts) == {"loss", "retrieval", "matching", "heatmap", "rerank"}
    scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    retrieval = info_nce(views["photo"].embedding, views["tile"].embedding, scale, label_smoothing=0.1)
    torch.testing.assert_close(parts["retrieval"], retrieval, rtol=1e-6, atol=0)
    expected = rerank_loss(views["photo"], views["tile"], scale)
    torch.testing.assert_close(parts["rerank"], expected, rtol=1e-6, atol=0)
    total = retrieval + 0.5 * parts["matching"] + 0.25 * parts["heatmap"] + 2 * parts["rerank"]
    torch.testing.assert_close(parts["loss"], total, rtol=1e-6, atol=0)


def test_the_matching_loss_by_hand():
    """Scales 1 and 2 of a 4 × 4 map, two pairs that know their truth, labels above 0.01 only."""
    views, batch = {"photo": features(4, 0), "tile": features(4, 1)}, batch_of(OFFSETS)
    total = []
    for factor, side in ((1, 4), (2, 2)):
        for n, share in ((0, (0.125, -0.25)), (2, (0.0, 0.4875))):
            g = collapse(views["photo"].local[n : n + 1])[0].numpy()  # checked in test_unifygeo_maps.py
            tile = views["tile"].local[n].numpy().reshape(4, side, factor, side, factor).mean((2, 4))
            tile = tile / np.linalg.norm(tile, axis=0)
            p = np.exp(np.einsum("c,chw->hw", g, tile) / 0.1)
            p = p / p.sum()
            top = bottom = 0.0
            for row, column in itertools.product(range(side), repeat=2):
                dx, dy = column + 0.5 - (share[0] + 0.5) * side, row + 0.5 - (share[1] + 0.5) * side
                y = math.exp(-(dx**2 + dy**2) / 2)
                if y > 0.01:
                    top, bottom = top - y * math.log(p[row, column]), bottom + y
            total.append(top / bottom)
    loss = make(scales=(1, 2))(views, batch)["matching"]
    assert loss.item() == pytest.approx(np.mean(total), rel=1e-9)


def test_matching_is_cheapest_at_the_true_place():
    """A photo of one descriptor, a tile that has it in one cell; the truth is in the middle of cell (1, 2)."""
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    photo = Features(unit(1, 5), local=a.view(1, 4, 1, 1).expand(1, 4, 4, 4))
    batch, method, losses = batch_of([[10.0, -10.0]]), make(scales=(1,)), {}
    for cell in itertools.product(range(4), repeat=2):
        local = b.view(1, 4, 1, 1).repeat(1, 1, 4, 4)
        local[0, :, cell[0], cell[1]] = a
        parts = method({"photo": photo, "tile": Features(unit(1, 5), local=local)}, batch)
        losses[cell] = (parts["matching"].item(), parts["heatmap"].item())
    for part in (0, 1):
        best, second = sorted(losses, key=lambda cell: losses[cell][part])[:2]
        assert best == (1, 2)
        assert losses[best][part] < losses[second][part] - 0.1


def test_a_new_method_locates_by_matching():
    """The decoder starts as the cosine map, so that its place is the best cell's."""
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    photo = Features(unit(1, 5), local=a.view(1, 4, 1, 1).expand(1, 4, 4, 4))
    local = b.view(1, 4, 1, 1).repeat(1, 1, 4, 4)
    local[0, :, 1, 2] = a
    tile, side = Features(unit(1, 5), local=local), torch.tensor([80.0], dtype=torch.float64)
    heatmap = make().heatmap(photo, tile)
    assert heatmap.shape == (1, 8, 8)
    error = locate(heatmap, side, soft_radius_cells=1) - torch.tensor([[10.0, -10.0]])
    assert error.norm() < 1  # a twentieth of a cell
    assert locate(matching_map(photo, tile), side).tolist() == [[10.0, -10.0]]


def test_pairs_without_a_truth_on_the_tile_take_no_part_in_locating():
    views, batch, method = {"photo": features(4, 0), "tile": features(4, 1)}, batch_of(OFFSETS), make()
    rows = torch.tensor([0, 2])
    some = {k: Features(v.embedding[rows], local=v.local[rows]) for k, v in views.items()}
    known = batch_of([OFFSETS[0], OFFSETS[2]])
    for part in ("matching", "heatmap"):
        torch.testing.assert_close(method(views, batch)[part], method(some, known)[part])


@pytest.mark.parametrize("unknown", [{"offset_m": torch.full((4, 2), NAN)}, {"tile_side_m": torch.full((4,), NAN)}])
def test_data_without_positions_trains_retrieval_and_reranking(unknown):
    views = {"photo": features(4, 0), "tile": features(4, 1)}
    for view in views.values():
        view.local.requires_grad_()
    method = make()
    parts = method(views, replace(batch_of([[0.0, 0.0]] * 4), **unknown))
    assert parts["matching"].item() == parts["heatmap"].item() == 0
    torch.testing.assert_close(parts["loss"], parts["retrieval"] + parts["rerank"])
    parts["loss"].backward()
    learning = [views["photo"].local, views["tile"].local, *method.parameters()]
    assert all(x.grad.isfinite().all() for x in learning)


def test_gradients_agree_with_finite_differences():
    method, batch = make(scales=(1, 2)), batch_of(OFFSETS[:3])
    with torch.no_grad():
        method.decoder.correct.weight.normal_(std=0.1, generator=seeded(0))
    inputs = [unit(3, 5), unit(3, 5, seed=1), unit(3, 4, 2, 2, seed=2), unit(3, 4, 2, 2, seed=3)]

    def losses(q, r, q_local, r_local):
        return tuple(method({"photo": Features(q, local=q_local), "tile": Features(r, local=r_local)}, batch).values())

    torch.autograd.gradcheck(losses, [x.requires_grad_() for x in inputs])


def test_every_parameter_learns():
    method = make()
    views = {"photo": features(4, 0), "tile": features(4, 1)}
    with torch.no_grad():
        method.decoder.correct.weight.normal_(generator=seeded(0))
    method(views, batch_of(OFFSETS))["loss"].backward()
    assert all(p.grad.abs().max() > 0 for p in method.parameters())


def test_a_model_without_dense_descriptors_names_the_fix():
    with pytest.raises(TrainingError, match=r"set model\.local_dim"):
        UnifyGeo(UnifyGeoConfig(), replace(SHAPE, local_dim=None))
    with pytest.raises(TrainingError, match=r"trained with model\.local_dim"):
        local_scores(Features(unit(1, 5)), features(1, 0))


@pytest.mark.parametrize("bad", [{"scales": ()}, {"matching_temperature": 0}, {"label_sigma_cells": 0.1}])
def test_knobs_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        UnifyGeoConfig(**bad)


# --- learning ----------------------------------------------------------------------------------------------------


def test_eight_places_are_learnt_by_heart():
    """Tiles are soft noise; photos show a quarter of their tile in other colours, each around another point."""
    torch.manual_seed(0)
    model = ModelConfig(
        "test_efficientnet", weights="none", embedding_dim=32, image_size=64, frozen_stages=0, local_dim=16
    )
    encoder = Encoder(model)
    method = UnifyGeo(UnifyGeoConfig(), replace(SHAPE, local_dim=16))
    tile = F.interpolate(torch.rand(8, 3, 8, 8, generator=seeded(0)), (64, 64), mode="bilinear")
    corner = torch.randint(0, 33, (8, 2), generator=seeded(1)).tolist()
    photo = torch.stack([tile[i, :, y : y + 32, x : x + 32] for i, (y, x) in enumerate(corner)])
    photo = 1 - F.interpolate(photo, (64, 64), mode="bilinear").flip(1)
    batch = replace(batch_of([[x - 16.0, y - 16.0] for y, x in corner], tile_side_m=64.0), photo=photo, tile=tile)
    optimizer = torch.optim.AdamW(itertools.chain(encoder.parameters(), method.parameters()), lr=2e-3)

    def embed():
        joined = encoder.features(torch.cat((batch.photo, batch.tile)).mul(255).permute(0, 2, 3, 1))
        (q, r), (q_local, r_local) = joined.embedding.chunk(2), joined.local.chunk(2)
        return {"photo": Features(q, local=q_local), "tile": Features(r, local=r_local)}

    @torch.no_grad()
    def judge():
        """R@1 by embedding, R@1 by local scores, mean error in metres."""
        views = embed()
        query, reference = views["photo"], views["tile"]
        tables = query.embedding @ reference.embedding.T, local_scores(query, reference)
        offset = locate(method.heatmap(query, reference), batch.tile_side_m, soft_radius_cells=1)
        recalls = [(scores.argmax(1) == batch.place).double().mean().item() for scores in tables]
        return *recalls, (offset - batch.offset_m).norm(dim=1).mean().item()

    before = judge()
    for _ in range(100):
        loss = method(embed(), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = judge()
    assert max(before[:2]) < 0.6
    assert before[2] > 10
    assert after[:2] == (1, 1)
    assert after[2] < 3
