"""What UnifyGeo does with dense descriptors: collapse, match, re-rank, locate; no trained parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_features import NAN, batch_of, features, seeded, unit

from training.methods import unifygeo
from training.methods.unifygeo import (
    coarsen,
    collapse,
    local_scores,
    locate,
    matching_map,
    rerank,
    rerank_loss,
    soft_cross_entropy,
    soft_label,
    true_position,
)

SHARES = st.floats(-0.5, 0.5)


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
