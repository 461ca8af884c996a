import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batch import Batch, Features
from training.config import ModelConfig
from training.errors import TrainingError
from training.methods import unifygeo
from training.methods.base import ModelShape
from training.methods.losses import info_nce
from training.methods.unifygeo import (
    UnifyGeo,
    UnifyGeoConfig,
    coarsen,
    collapse,
    dense_loss,
    local_scores,
    locate,
    matching_map,
    rerank,
    rerank_loss,
    soft_cross_entropy,
    soft_label,
    true_position,
)
from training.models.encoder import Encoder

SHAPE = ModelShape(embedding_dim=5, stage_channels=(), local_dim=4, places=6, image_size=64)
NAN = math.nan
SHARES = st.floats(-0.5, 0.5)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=seeded(seed)), dim=1)


def features(n, seed, side=4):
    return Features(unit(n, 5, seed=seed), local=unit(n, 4, side, side, seed=seed + 100))


def batch_of(offset_m, tile_side_m=80.0):
    offset = torch.tensor(offset_m, dtype=torch.float64)
    n, side = len(offset), torch.tensor(tile_side_m, dtype=torch.float64)
    empty = torch.zeros(n, 3, 1, 1)
    return Batch(empty, empty, torch.arange(n), offset, side.expand(n), torch.ones(n))


# --- where the truth is ------------------------------------------------------------------------------------------


def test_positions_are_shares_of_the_tile_and_may_be_unknown():
    batch = batch_of([[40.0, -40.0], [8.0, 20.0], [NAN, 0.0], [NAN, NAN], [40.1, 0.0], [0.0, -1e9]])
    share, known = true_position(batch)
    assert known.tolist() == [True, True, False, False, False, False]
    assert share.tolist() == [[0.5, -0.5], [0.1, 0.25], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_a_tile_of_unknown_size_tells_no_position():
    share, known = true_position(batch_of([[0.0, 0.0]], tile_side_m=NAN))
    assert known.tolist() == [False]
    assert share.tolist() == [[0, 0]]


def test_a_label_by_hand():
    """A tile of 2 × 4 cells; a quarter of its side to the right of the centre lies between columns 2 and 3."""
    label = soft_label(torch.tensor([[0.25, -0.25]], dtype=torch.float64), 2, 4, 1.0)
    columns = [math.exp(-(d**2) / 2) for d in (2.5, 1.5, 0.5, 0.5)]
    rows = [1.0, math.exp(-0.5)]
    np.testing.assert_allclose(label[0], np.outer(rows, columns), rtol=1e-12)


@given(SHARES, SHARES, st.integers(1, 9), st.integers(1, 9), st.floats(0.5, 3))
def test_the_label_peaks_in_the_cell_of_the_truth(right, down, height, width, sigma):
    label = soft_label(torch.tensor([[right, down]], dtype=torch.float64), height, width, sigma)[0]
    row = min(int((down + 0.5) * height), height - 1)
    column = min(int((right + 0.5) * width), width - 1)
    assert label[row, column] >= label.max() * (1 - 1e-6)
    assert label[row, column] >= math.exp(-0.5 / (2 * sigma**2)) * (1 - 1e-6)  # a corner is √½ cells off
    assert label.max() <= 1


# --- cross entropy over a map ------------------------------------------------------------------------------------


def test_cross_entropy_by_hand():
    """Logits log 1, log 2, log 3, log 4 have probabilities .1 .2 .3 .4; labels 0, 0, 1, .5 are 2/3 and 1/3."""
    logits = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).log()
    label = torch.tensor([[[0.0, 0.0], [1.0, 0.5]]])
    expected = -(2 / 3 * math.log(0.3) + 1 / 3 * math.log(0.4))
    assert soft_cross_entropy(logits, label, torch.tensor([True])).item() == pytest.approx(expected)


def test_rows_that_are_not_known_take_no_part():
    logits = torch.randn(4, 3, 3, generator=seeded(0)).requires_grad_()
    label, known = torch.rand(4, 3, 3, generator=seeded(1)), torch.tensor([True, False, True, False])
    loss = soft_cross_entropy(logits, label, known)
    torch.testing.assert_close(loss, soft_cross_entropy(logits[known], label[known], known[known]))
    loss.backward()
    assert [bool(row.any()) for row in logits.grad] == known.tolist()


def test_without_any_known_row_the_loss_is_0():
    logits = torch.randn(2, 3, 3, generator=seeded(0)).requires_grad_()
    loss = soft_cross_entropy(logits, torch.ones(2, 3, 3), torch.tensor([False, False]))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_gradients_of_the_cross_entropy():
    logits = torch.randn(3, 2, 3, dtype=torch.float64, generator=seeded(0)).requires_grad_()
    label, known = torch.rand(3, 2, 3, dtype=torch.float64, generator=seeded(1)), torch.tensor([True, False, True])
    torch.autograd.gradcheck(lambda x: soft_cross_entropy(x, label, known), logits)


# --- descriptors -------------------------------------------------------------------------------------------------


def by_hand_collapse(local):
    """[C, h, w] → [C], position by position."""
    flat = local.reshape(len(local), -1).T
    mean = flat.mean(0) / np.linalg.norm(flat.mean(0))
    weights = np.exp([float(v @ mean) / 0.1 for v in flat])
    total = sum(w * v for w, v in zip(weights, flat, strict=True))
    return total / np.linalg.norm(total)


def test_collapse_is_its_formula():
    local = unit(3, 4, 3, 2)
    expected = [by_hand_collapse(one) for one in local.numpy()]
    np.testing.assert_allclose(collapse(local), expected, rtol=1e-10)


def test_a_photo_that_is_the_same_everywhere_collapses_to_just_that():
    vector = unit(2, 4)
    torch.testing.assert_close(collapse(vector[:, :, None, None].expand(2, 4, 3, 5)), vector)


def test_a_turned_photo_collapses_to_the_same_vector():
    local = unit(2, 4, 5, 5)
    torch.testing.assert_close(collapse(torch.rot90(local, 1, (2, 3))), collapse(local))


def test_what_most_of_the_photo_agrees_on_counts_more():
    """Three positions say a, one says b at a right angle: the plain mean has b : a = 1 : 3."""
    a, b = torch.eye(4, dtype=torch.float64)[:2]
    vector = collapse(torch.stack((a, a, a, b), dim=1).view(1, 4, 2, 2))[0]
    assert 0 < vector[1] / vector[0] < 0.1 / 3


def test_coarser_descriptors_are_means_of_unit_length():
    local = unit(1, 4, 4, 6)
    coarse = coarsen(local, 2)
    assert coarse.shape == (1, 4, 2, 3)
    mean = local[0, :, 2:4, 4:6].mean((1, 2))
    torch.testing.assert_close(coarse[0, :, 1, 2], mean / mean.norm())
    assert coarsen(local, 1) is local
    assert coarsen(local, 100).shape == (1, 4, 1, 1)


# --- re-ranking --------------------------------------------------------------------------------------------------


def by_hand_scores(query, reference):
    scores = np.zeros((len(query), len(reference)))
    for i, q in enumerate(query.numpy()):
        g = by_hand_collapse(q)
        for j, r in enumerate(reference.numpy()):
            scores[i, j] = max(float(g @ r[:, y, x]) for y in range(r.shape[1]) for x in range(r.shape[2]))
    return scores


def test_local_scores_are_the_best_match():
    query, reference = features(3, 0), features(5, 1, side=3)
    expected = by_hand_scores(query.local, reference.local)
    np.testing.assert_allclose(local_scores(query, reference), expected, rtol=1e-10)
    candidates = torch.tensor([[4, 0], [1, 1], [2, 3]])
    chosen = local_scores(query, reference, candidates)
    np.testing.assert_allclose(chosen, np.take_along_axis(expected, candidates.numpy(), 1), rtol=1e-10)


@pytest.mark.parametrize("at_once", [1, 3 * 16, 3 * 16 * 2 + 5])
def test_scores_and_gradients_do_not_depend_on_how_many_are_held_at_once(monkeypatch, at_once):
    def run():
        query, reference = features(3, 0), features(5, 1)
        query.local.requires_grad_()
        reference.local.requires_grad_()
        scores = local_scores(query, reference)
        scores.square().sum().backward()
        return scores.detach(), query.local.grad, reference.local.grad

    whole = run()
    monkeypatch.setattr(unifygeo, "_COSINES_AT_ONCE", at_once)
    for ours, theirs in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_rerank_loss_is_info_nce_over_the_scores():
    query, reference, scale = features(4, 0), features(4, 1), 7.0
    scores = scale * by_hand_scores(query.local, reference.local)
    rows = np.log(np.exp(scores).sum(1)) - np.diag(scores)
    columns = np.log(np.exp(scores).sum(0)) - np.diag(scores)
    loss = rerank_loss(query, reference, torch.tensor(scale, dtype=torch.float64))
    assert loss.item() == pytest.approx((rows.mean() + columns.mean()) / 2)


SCORES = st.lists(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.0, 0.25, 0.5])), min_size=5, max_size=5),
    min_size=1,
    max_size=4,
)


@given(SCORES)
def test_reranking_sorts_by_the_sum_and_keeps_ties(pairs):
    scores = torch.tensor(pairs)
    order = rerank(scores[..., 0], scores[..., 1])
    for row, ours in zip(pairs, order.tolist(), strict=True):
        assert ours == sorted(range(5), key=lambda k: -(row[k][0] + row[k][1]))  # Python's sort is stable


@given(SCORES)
def test_reranking_loses_no_candidate(pairs):
    scores = torch.tensor(pairs)
    order = rerank(scores[..., 0], scores[..., 1])
    assert order.sort(1).values.tolist() == [list(range(5))] * len(pairs)


def test_a_good_local_match_wins():
    assert rerank(torch.tensor([[0.9, 0.8, 0.1]]), torch.tensor([[0.2, 0.4, 0.5]])).tolist() == [[1, 0, 2]]


# --- locating ----------------------------------------------------------------------------------------------------


def test_locating_by_hand():
    """4 × 8 cells of a tile of 80 m: cells of 10 m across and 20 m down; row 3, column 1 is their middle."""
    heatmap = torch.zeros(1, 4, 8)
    heatmap[0, 3, 1] = 1
    assert locate(heatmap, torch.tensor([80.0])).tolist() == [[-25.0, 30.0]]


def test_soft_locating_finds_the_middle_of_equal_cells_and_ignores_far_ones():
    heatmap = torch.full((1, 4, 8), -50.0)
    heatmap[0, 2, 4], heatmap[0, 2, 5], heatmap[0, 0, 0] = 3.0, 3.0, 2.9
    offset = locate(heatmap, torch.tensor([80.0]), soft_radius_cells=1)
    torch.testing.assert_close(offset, torch.tensor([[10.0, 10.0]]))


@given(SHARES, SHARES, st.floats(10, 1000))
@settings(max_examples=50)
def test_a_label_is_located_where_its_truth_is(right, down, side_m):
    """To half a cell by the best cell."""
    share, side = torch.tensor([[right, down]], dtype=torch.float64), torch.tensor([side_m], dtype=torch.float64)
    label = soft_label(share, 8, 10, 1.0).log()
    error = (locate(label, side) - share * side).abs() / side
    assert error[0, 0] <= 0.5 / 10 + 1e-9
    assert error[0, 1] <= 0.5 / 8 + 1e-9


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
@settings(max_examples=50)
def test_soft_locating_is_finer_than_a_cell(right, down):
    """A Gaussian of σ = 1 cell, cut at 3 cells: the error is that of the cut, below a twentieth of a cell."""
    share = torch.tensor([[right, down]], dtype=torch.float64)
    label = soft_label(share, 16, 16, 1.0).log()
    error = (locate(label, torch.ones(1, dtype=torch.float64), soft_radius_cells=3) - share).abs()
    assert error.max() <= 0.05 / 16


def test_the_matching_map_needs_no_decoder():
    query, reference = features(3, 0), features(3, 1)
    maps = matching_map(query, reference)
    for n in range(3):
        g = by_hand_collapse(query.local[n].numpy())
        np.testing.assert_allclose(maps[n], np.einsum("c,chw->hw", g, reference.local[n]), rtol=1e-10)


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
            g = by_hand_collapse(views["photo"].local[n].numpy())
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


# --- dense matching ----------------------------------------------------------------------------------------------


def batch_with_ground(shares, pixels_per_cell=2, tile_side_m=80.0):
    """A batch whose photos show, in each cell, the ground at ``shares [B, h, w, 2]`` of the tile's side."""
    ground = torch.as_tensor(shares, dtype=torch.float64) * tile_side_m
    ground = ground.repeat_interleave(pixels_per_cell, 1).repeat_interleave(pixels_per_cell, 2)
    return replace(batch_of([(0.0, 0.0)] * len(ground), tile_side_m), ground_m=ground)


def grid_shares(side):
    """Where cell centres lie, when the photo is the tile: ``[side, side, 2]`` right, down."""
    centre = (torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5
    down, right = torch.meshgrid(centre, centre, indexing="ij")
    return torch.stack((right, down), dim=2)


def test_dense_loss_against_loops():
    side, config = 4, UnifyGeoConfig(label_sigma_cells=0.8)
    photo, tile = unit(2, 3, side, side, seed=1), unit(2, 3, side, side, seed=2)
    shares = torch.rand(2, side, side, 2, dtype=torch.float64, generator=seeded(3)) * 1.2 - 0.6
    shares[0, 0, 0] = NAN
    losses = []
    for b, row, column in itertools.product(range(2), range(0, side, 2), range(0, side, 2)):
        right, down = shares[b, row, column].tolist()
        if not (abs(right) < 0.5 and abs(down) < 0.5):
            continue
        logits, labels = [], []
        for r, c in itertools.product(range(side), range(side)):
            cosine = sum(float(photo[b, k, row, column] * tile[b, k, r, c]) for k in range(3))
            logits.append(cosine / config.matching_temperature)
            far = (c + 0.5 - (right + 0.5) * side) ** 2 + (r + 0.5 - (down + 0.5) * side) ** 2
            labels.append(math.exp(-far / (2 * 0.8**2)))
        total = math.log(sum(math.exp(x) for x in logits))
        losses.append(sum(y * (total - x) for x, y in zip(logits, labels, strict=True)) / sum(labels))
    assert 0 < len(losses) < 8
    found = dense_loss(photo, tile, batch_with_ground(shares), config)
    assert float(found) == pytest.approx(sum(losses) / len(losses), rel=1e-9)


def test_dense_loss_is_least_where_every_part_is_in_its_place():
    side, config = 4, UnifyGeoConfig(label_sigma_cells=0.5)
    tile = torch.eye(side * side, dtype=torch.float64).view(1, side * side, side, side)
    straight = batch_with_ground(grid_shares(side)[None])
    turned = batch_with_ground(torch.rot90(grid_shares(side), 1, (0, 1))[None])
    quarter = torch.rot90(tile, 1, (2, 3))  # the photo, turned as its ground is
    right_way = dense_loss(tile, tile, straight, config)
    assert dense_loss(quarter, tile, turned, config) == pytest.approx(float(right_way))
    assert dense_loss(tile, tile, turned, config) > right_way + 1
    assert dense_loss(quarter, tile, straight, config) > right_way + 1


def test_dense_loss_without_known_ground_is_zero_and_without_ground_an_error():
    maps = unit(1, 3, 4, 4)
    nowhere = batch_with_ground(torch.full((1, 4, 4, 2), NAN))
    assert float(dense_loss(maps, maps, nowhere, UnifyGeoConfig())) == 0
    with pytest.raises(TrainingError, match=r"dense_weight .* set 0"):
        dense_loss(maps, maps, batch_of([(0.0, 0.0)]), UnifyGeoConfig())


def test_dense_gradients_by_finite_differences():
    photo, tile = (unit(1, 2, 4, 4, seed=s).requires_grad_() for s in (4, 5))
    batch = batch_with_ground(grid_shares(4)[None])
    assert torch.autograd.gradcheck(lambda a, b: dense_loss(a, b, batch, UnifyGeoConfig()), (photo, tile))
