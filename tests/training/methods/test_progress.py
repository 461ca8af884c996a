import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.methods.progress import ProgressSignal

losses = st.lists(st.floats(0, 5, width=32), min_size=1, max_size=30)
ends = st.sampled_from([(0.0, 1.0), (0.0, 2.5), (1.0, 0.2), (0.7, 0.7)])


def run(signal, values):
    return [signal(torch.tensor(v)).item() for v in values]


def slowly(values, start, end, window, beta):
    """The recursion, read off the docstring, in plain Python."""
    coefficient, path, reference = start, [], None
    for t in range(1, len(values) + 1):
        if t >= window:
            mean = sum(values[t - window : t]) / window
            reference = mean if reference is None else reference
            progress = 1.0 if reference <= 1e-6 else min(1.0, max(0.0, 1 - mean / reference))
            coefficient = beta * coefficient + (1 - beta) * (start + (end - start) * progress)
        path.append(coefficient)
    return path


@settings(max_examples=100)
@given(losses, ends, st.integers(1, 6), st.sampled_from([0.0, 0.5, 0.9]))
def test_the_signal_is_its_recursion(values, ends, window, beta):
    path = run(ProgressSignal(*ends, window=window, beta=beta), values)
    assert path == pytest.approx(slowly(values, *ends, window, beta), abs=1e-4)
    assert all(min(ends) - 1e-6 <= c <= max(ends) + 1e-6 for c in path)


def test_by_hand_growing():
    # window 2: means 4 (the reference), 3, 2, 1 → progress 0, 1/4, 1/2, 3/4; half of the way each step
    path = run(ProgressSignal(0.0, 1.0, window=2, beta=0.5), [4.0, 4.0, 2.0, 2.0, 0.0])
    assert path == pytest.approx([0, 0, 0.125, 0.3125, 0.53125])


def test_by_hand_decaying():
    # the same progress; targets 1, 0.8, 0.6, 0.4
    path = run(ProgressSignal(1.0, 0.2, window=2, beta=0.5), [4.0, 4.0, 2.0, 2.0, 0.0])
    assert path == pytest.approx([1, 1, 0.9, 0.75, 0.575])


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.2)])
def test_nothing_moves_before_the_window_is_full(start, end):
    path = run(ProgressSignal(start, end, window=5, beta=0.9), [5.0, 1.0, 0.1, 0.0])
    assert path == pytest.approx([start] * 4)


def test_the_coefficient_returns_when_the_loss_rises_again():
    path = run(ProgressSignal(0.0, 1.0, window=1, beta=0.5), [1.0] + [0.0] * 6 + [1.0] * 6)
    assert path[1:7] == sorted(path[1:7])
    assert path[7:] == sorted(path[7:], reverse=True)
    assert path[6] > 0.95
    assert path[-1] < 0.05


def test_a_loss_above_the_reference_is_no_progress_not_a_negative_one():
    assert run(ProgressSignal(0.0, 1.0, window=1, beta=0.0), [1.0, 3.0]) == [0, 0]


def test_a_loss_that_begins_at_nothing_is_all_done():
    assert run(ProgressSignal(0.0, 1.0, window=2, beta=0.0), [0.0, 0.0, 0.0]) == [0, 1, 1]


def test_evaluation_reads_and_does_not_move():
    signal = ProgressSignal(0.0, 1.0, window=1, beta=0.5)
    run(signal, [1.0, 0.5])
    before = copy.deepcopy(signal.state_dict())
    assert run(signal.eval(), [0.0, 9.0]) == [0.25, 0.25]
    assert all(torch.equal(before[k], v) for k, v in signal.state_dict().items())


@pytest.mark.parametrize("stop", [1, 3, 4, 11])  # before, at and after the end of the first window, and much later
def test_a_checkpoint_goes_on_as_if_it_had_never_stopped(stop):
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)).tolist()
    whole = run(ProgressSignal(0.0, 1.0, window=4, beta=0.9), values)
    first, second = (ProgressSignal(0.0, 1.0, window=4, beta=0.9) for _ in range(2))
    run(first, values[:stop])
    second.load_state_dict(first.state_dict())
    assert run(second, values[stop:]) == whole[stop:]


def test_no_gradient_passes_and_a_graph_outlives_the_next_step():
    signal = ProgressSignal(0.0, 1.0, window=1, beta=0.5)
    run(signal, [1.0])
    loss = torch.tensor(0.5, requires_grad=True)
    coefficient = signal(loss)
    assert not coefficient.requires_grad
    product = coefficient * loss
    signal(torch.tensor(0.1))
    product.backward()  # the derivative by the loss is the coefficient of its own step, 1/2 · (1 - 1/2)
    assert loss.grad.item() == pytest.approx(0.25)
