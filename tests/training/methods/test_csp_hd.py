import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import normalize

from training.batch import Batch, Features
from training.errors import TrainingError
from training.methods.base import ModelShape
from training.methods.csp_hd import CSPHD, CSPHDConfig, confidence_alignment, normalized_entropy
from training.methods.losses import info_nce

CHANNELS = (3, 5, 6, 7)


def make(places=6, channels=CHANNELS, **knobs):
    torch.manual_seed(0)
    shape = ModelShape(embedding_dim=4, stage_channels=channels, local_dim=None, places=places, image_size=32)
    return CSPHD(CSPHDConfig(**({"hidden_dim": 8} | knobs)), shape)


def make_batch(places):
    n = len(places)
    nothing, unknown = torch.zeros(n, 3, 1, 1), torch.full((n,), torch.nan)
    return Batch(nothing, nothing, torch.tensor(places), unknown[:, None].expand(n, 2), unknown, torch.ones(n))


def make_features(n, seed=0, channels=CHANNELS):
    generator = torch.Generator().manual_seed(seed)

    def view():
        embedding = normalize(torch.randn(n, 4, generator=generator), dim=-1)
        return Features(embedding, tuple(torch.randn(n, c, generator=generator) for c in channels))

    return {"photo": view(), "tile": view()}


def softmax(logits, temperature=1.0):
    powers = [math.exp(z / temperature) for z in logits]
    return [p / sum(powers) for p in powers]


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def entropy(p):
    return -sum(a * math.log(a) for a in p) / math.log(len(p))


# confidence


def test_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [200.0, 0.0]])
    # even odds; 3 : 1 is 2 - 3/4 log2(3) bits; certainty
    assert normalized_entropy(logits).tolist() == pytest.approx([1, 2 - 0.75 * math.log2(3), 0], abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=9))
def test_entropy_lies_between_0_and_1_and_knows_no_offset(logits):
    z = torch.tensor([logits], dtype=torch.float64)
    assert -1e-12 <= normalized_entropy(z).item() <= 1 + 1e-12
    assert normalized_entropy(z + 5).item() == pytest.approx(normalized_entropy(z).item(), abs=1e-9)


def test_ignorance_is_1_whatever_the_number_of_classes_and_one_class_is_certain():
    assert [normalized_entropy(torch.zeros(1, c)).item() for c in (2, 10, 1000)] == pytest.approx([1, 1, 1])
    assert normalized_entropy(torch.zeros(1, 1)).item() == 0


@pytest.mark.parametrize("direction", ["confident", "fixed"])
def test_alignment_is_its_formula(direction):
    generator = torch.Generator().manual_seed(0)
    photo, tile = (3 * torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    expected, teachers = 0.0, set()
    for p, t in zip(photo.tolist(), tile.tolist(), strict=True):
        teacher, student, name = t, p, "tile"
        if direction == "confident" and entropy(softmax(p)) < entropy(softmax(t)):
            teacher, student, name = p, t, "photo"
        teachers.add(name)
        temperature = 3.0 * (1 + 1 / (1 + math.exp(entropy(softmax(teacher)) - entropy(softmax(student)))))
        expected += temperature**2 * divergence(softmax(teacher, temperature), softmax(student, temperature)) / 8
    assert teachers == ({"photo", "tile"} if direction == "confident" else {"tile"})
    assert confidence_alignment(photo, tile, 3.0, direction, None).item() == pytest.approx(expected, rel=1e-9)


def test_only_the_student_learns_and_pair_by_pair():
    sure, unsure = [5.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    photo = torch.tensor([sure, unsure], dtype=torch.float64, requires_grad=True)
    tile = torch.tensor([unsure, sure], dtype=torch.float64, requires_grad=True)
    confidence_alignment(photo, tile, 4.0, "confident", None).backward()
    assert photo.grad[0].abs().max() == tile.grad[1].abs().max() == 0
    assert photo.grad[1].abs().max() > 0.1
    assert tile.grad[0].abs().max() > 0.1
    photo.grad = tile.grad = None
    confidence_alignment(photo, tile, 4.0, "fixed", None).backward()
    assert tile.grad.abs().max() == 0
    assert (photo.grad.abs().amax(1) > 0.1).all()


def test_the_temperature_carries_no_gradient():
    """The gradient is that of distillation at a temperature frozen at its value."""
    photo = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    tile = torch.tensor([[4.0, 0.0, 1.0]], dtype=torch.float64)
    confidence_alignment(photo, tile, 4.0, "fixed", None).backward()
    gap = entropy(softmax(photo[0].tolist())) - entropy(softmax(tile[0].tolist()))
    t = 4 * (1 + 1 / (1 + math.exp(-gap)))
    # d/dz of T² KL(p ‖ softmax(z / T)) = T (softmax(z / T) - p)
    p, q = softmax(tile[0].tolist(), t), softmax(photo[0].tolist(), t)
    assert photo.grad[0].tolist() == pytest.approx([t * (b - a) for a, b in zip(p, q, strict=True)], rel=1e-9)


def test_the_less_sure_student_gets_the_softer_lesson():
    """A view that doubts more than its teacher raises the temperature, one that doubts less lowers it."""
    tile = torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64)
    doubting, sure = torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[0.0, 9.0, 0.0]], dtype=torch.float64)
    for photo, low, high in ((doubting, 6.0, 8.0), (sure, 4.0, 6.0)):
        z = photo.clone().requires_grad_()
        loss = confidence_alignment(z, tile, 4.0, "fixed", None)
        gap = entropy(softmax(photo[0].tolist())) - entropy(softmax(tile[0].tolist()))
        t = 4 * (1 + 1 / (1 + math.exp(-gap)))
        assert low < t < high
        lesson = t**2 * divergence(softmax(tile[0].tolist(), t), softmax(photo[0].tolist(), t))
        assert loss.item() == pytest.approx(lesson, rel=1e-9)


# the method


def logits_of(method, features):
    return {
        view: [head(s).tolist() for head, s in zip(method.heads, f.stages, strict=True)] for view, f in features.items()
    }


@torch.no_grad()
def test_every_part_is_its_formula():
    method, features, places = make(clip_nats=None), make_features(4), [5, 0, 3, 2]
    parts = method(features, make_batch(places))
    supervision = hcd = 0.0
    for stages in logits_of(method, features).values():
        for stage in stages:
            supervision -= sum(math.log(softmax(z)[c]) for z, c in zip(stage, places, strict=True)) / 4 / 2
        for weight, teachers in zip((0.1, 0.2, 0.3), stages[:3], strict=True):
            for teacher, student in zip(teachers, stages[3], strict=True):
                hcd += weight * 16 * divergence(softmax(teacher, 4), softmax(student, 4)) / 4 / 2
    photo, tile = (f.embedding for f in features.values())
    metric = info_nce(photo, tile, torch.tensor(1 / 0.07), label_smoothing=0.1).item()
    assert parts["supervision"].item() == pytest.approx(supervision, rel=1e-5)
    assert parts["hcd"].item() == pytest.approx(hcd, rel=1e-4)
    assert parts["metric"].item() == pytest.approx(metric, rel=1e-5)
    assert parts["lambda"].item() == 1
    total = metric + supervision + hcd + 0.2 * parts["csda"].item()
    assert parts["loss"].item() == pytest.approx(total, rel=1e-5)
    last = [torch.tensor(stages[3]) for stages in logits_of(method, features).values()]
    assert parts["csda"].item() == pytest.approx(confidence_alignment(*last, 4.0, "confident", None).item(), rel=1e-5)


def test_knobs_weigh_the_parts():
    features, batch = make_features(4), make_batch([0, 1, 2, 3])
    parts = make(supervision_weight=0.25, csda_weight=2.0, lambda_range=(0.5, 0.5))(features, batch)
    expected = parts["metric"] + 0.25 * parts["supervision"] + 0.5 * parts["hcd"] + 2 * parts["csda"]
    assert parts["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_triplet_loss_by_hand():
    """Two pairs on the unit circle at 0°, 90° (photos) and 0°, 180° (tiles): distances [[0, 2], [√2, √2]]."""
    views = make_features(2)
    photo = Features(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), views["photo"].stages)
    tile = Features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), views["tile"].stages)
    plain, more = (
        make(triplet_weight=w, margin=1.0)({"photo": photo, "tile": tile}, make_batch([0, 1]))["metric"].item()
        for w in (0.0, 2.0)
    )
    # photo → tile: 0 and 1; tile → photo: 0 and √2 - 2 + 1; the mean of each way, and of both
    assert more - plain == pytest.approx(2 * (1 / 2 + (math.sqrt(2) - 1) / 2) / 2, rel=1e-5)


def gradient_norms(part, parameters):
    parameters = list(parameters)
    grads = torch.autograd.grad(part, parameters, retain_graph=True, allow_unused=True)
    return [0.0 if g is None else g.norm().item() for g in grads]


def test_the_shallow_stages_teach_and_do_not_learn_from_it():
    method = make()
    parts = method(make_features(4), make_batch([0, 1, 2, 3]))
    assert max(gradient_norms(parts["hcd"], method.heads[:3].parameters())) == 0
    assert min(gradient_norms(parts["hcd"], method.heads[3].parameters())) > 0
    assert max(gradient_norms(parts["csda"], method.heads[:3].parameters())) == 0
    assert min(gradient_norms(parts["csda"], method.heads[3].parameters())) > 0
    assert min(gradient_norms(parts["supervision"], method.heads.parameters())) > 0
    assert not parts["lambda"].requires_grad


def test_gradients_agree_with_finite_differences():
    # the metric, supervision and student's share of hcd; csda picks its teacher and stops there, so it sits out
    method, batch = (
        make(csda_weight=0.0, lambda_range=(0.5, 0.5), triplet_weight=1.0, clip_nats=None).double(),
        make_batch([2, 0]),
    )
    fixed = make_features(2)
    shallow = {view: [s.double() for s in f.stages[:3]] for view, f in fixed.items()}

    def total(photo, tile, photo_last, tile_last):
        views = {
            "photo": Features(normalize(photo, dim=-1), (*shallow["photo"], photo_last)),
            "tile": Features(normalize(tile, dim=-1), (*shallow["tile"], tile_last)),
        }
        return method(views, batch)["loss"]

    inputs = [f.embedding for f in fixed.values()] + [f.stages[3] for f in fixed.values()]
    assert torch.autograd.gradcheck(total, [x.double().requires_grad_() for x in inputs])


@pytest.mark.parametrize("signal", ["supervision", "hcd"])
def test_lambda_decays_as_training_settles_and_returns_when_it_does_not(signal):
    method, batch = make(window=2, beta=0.5, progress_from=signal), make_batch([0, 0, 0, 0])
    nn.init.normal_(method.heads[3][-1].weight, std=3.0)  # a last stage that contradicts the others
    apart = copy.deepcopy(method.heads.state_dict())
    path = []
    for settled in [False] * 3 + [True] * 8 + [False] * 8:
        method.heads.load_state_dict(apart)
        if settled:  # all stages say the same, and it is right
            for head in method.heads:
                nn.init.zeros_(head[-1].weight)
                head[-1].bias.data = torch.tensor([20.0, 0, 0, 0, 0, 0])
        path.append(method(make_features(4), batch)["lambda"].item())
    assert path[:3] == [1, 1, 1]
    assert path[2:11] == sorted(path[2:11], reverse=True)
    assert 0.2 <= path[10] < 0.25
    assert path[12:] == sorted(path[12:])
    assert path[-1] > 0.98


def test_fresh_stages_agree_in_knowing_nothing_so_their_divergence_is_no_progress_signal():
    """Learning to tell places apart makes the stages differ: HCD's loss rises from its start, supervision's falls."""
    method, batch, features = make(channels=(4, 4, 4, 4)), make_batch(range(6)), make_features(6, channels=(4,) * 4)
    optimizer, path = torch.optim.Adam(method.parameters(), lr=0.01), []
    for _ in range(60):
        optimizer.zero_grad()
        path.append(method(features, batch))
        path[-1]["loss"].backward()
        optimizer.step()
    assert path[-1]["hcd"] > path[0]["hcd"]
    assert path[-1]["supervision"] < path[0]["supervision"] / 2


def test_equal_stages_have_nothing_to_distill():
    method = make()
    for head in method.heads:
        nn.init.zeros_(head[-1].weight)
        nn.init.zeros_(head[-1].bias)
    parts = method(make_features(4), make_batch([0, 1, 2, 3]))
    assert parts["hcd"].item() == pytest.approx(0, abs=1e-6)
    assert parts["csda"].item() == pytest.approx(0, abs=1e-6)
    assert parts["supervision"].item() == pytest.approx(4 * math.log(6), rel=1e-5)


def test_evaluation_moves_no_memory():
    method, batch = make(window=1, beta=0.0).eval(), make_batch([0, 1, 2, 3])
    before = copy.deepcopy(method.state_dict())
    assert method(make_features(4), batch)["lambda"] == 1
    assert all(torch.equal(before[k], v) for k, v in method.state_dict().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("place", "places"), [(4, 6), (0, 1)])
def test_one_pair_and_one_place_are_no_special_case(training, place, places):
    parts = make(places=places).train(training)(make_features(1), make_batch([place]))
    parts["loss"].backward()
    assert all(value.isfinite() for value in parts.values())


def test_bfloat16_autocast_changes_little():
    method, features, batch = make(), make_features(6), make_batch(range(6))
    full = method.eval()(features, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method(features, batch)
    assert {value.dtype for value in half.values()} == {torch.float32}
    for name, value in full.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.01)


def test_the_last_stages_have_heads():
    channels = (2, 3, 5, 6, 7)
    features, method = make_features(4, channels=channels), make(channels=channels)
    assert [head[0].in_features for head in method.heads] == [3, 5, 6, 7]
    assert method.needs_stages
    assert method(features, make_batch([0, 1, 2, 3]))["loss"].isfinite()


def test_fewer_weights_take_fewer_stages():
    method = make(channels=(5, 7), hcd_weights=(1.0,))
    assert [head[0].in_features for head in method.heads] == [5, 7]


def test_too_few_stages_are_refused_with_the_fix():
    with pytest.raises(TrainingError, match=r"4 stages; this one has 2.*fewer weights"):
        make(channels=(5, 7))


@pytest.mark.parametrize("direction", ["confident", "fixed"])
def test_free_stage_features_are_told_apart(direction):
    """The embedding is the last stage, of unit length: all losses pull at the same numbers."""
    torch.manual_seed(0)
    method, batch = make(channels=(4, 4, 4, 4), window=5, beta=0.9, direction=direction), make_batch(range(6))
    free, right = nn.Parameter(torch.randn(2, 4, 6, 4)), torch.arange(6)
    optimizer = torch.optim.Adam([free, *method.parameters()], lr=0.05)

    def features():
        return {n: Features(normalize(v[3], dim=-1), tuple(v)) for n, v in zip(("photo", "tile"), free, strict=True)}

    def recalled():
        photo, tile = (f.embedding for f in features().values())
        return torch.equal((photo @ tile.T).argmax(1), right) and torch.equal((photo @ tile.T).argmax(0), right)

    assert not recalled()
    for _ in range(150):
        optimizer.zero_grad()
        parts = method(features(), batch)
        parts["loss"].backward()
        optimizer.step()
    assert recalled()
    assert parts["lambda"] < 0.5
    for f in features().values():
        assert all(torch.equal(head(s).argmax(1), right) for head, s in zip(method.heads, f.stages, strict=True))


@pytest.mark.parametrize(
    "wrong",
    [{"hcd_weights": ()}, {"lambda_range": (1.0, 0.2)}, {"beta": 1.0}, {"direction": "both"}, {"clip_nats": 0.0}],
)
def test_wrong_knobs_are_refused(wrong):
    with pytest.raises(ValidationError):
        CSPHDConfig(**wrong)
