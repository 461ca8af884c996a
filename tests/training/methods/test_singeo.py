import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.batch import Batch, Features
from training.config import ModelConfig
from training.methods.base import ModelShape
from training.methods.losses import info_nce
from training.methods.singeo import SinGeo, SinGeoConfig, pace, turn_and_crop
from training.models.encoder import Encoder

SHAPE = ModelShape(embedding_dim=5, stage_channels=(), local_dim=None, places=6, image_size=8)
SCHEDULES = st.sampled_from(["f1", "f2", "f3"])
SHARES = st.floats(0, 1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def batch_of(photo, tile):
    n = len(photo)
    unknown = torch.full((n,), math.nan)
    return Batch(photo, tile, torch.arange(n), torch.full((n, 2), math.nan), unknown, torch.ones(n))


def ramps(side, count=1):
    """Pictures whose channels are x and y of each pixel's middle, -1 to 1 over the picture: they show turns."""
    line = (2 * torch.arange(side, dtype=torch.float64) + 1) / side - 1
    return torch.stack((line.expand(side, side), line[:, None].expand(side, side))).expand(count, 2, side, side)


# --- curriculum --------------------------------------------------------------------------------------------------


@given(SCHEDULES, st.floats(0.1, 20))
def test_the_pace_runs_from_0_to_1(schedule, curvature):
    assert pace(schedule, 0.0, curvature) == 0
    assert pace(schedule, 1.0, curvature) == pytest.approx(1)


@given(SCHEDULES, st.floats(0.1, 20), SHARES, SHARES)
def test_the_pace_never_falls(schedule, curvature, a, b):
    assert pace(schedule, min(a, b), curvature) <= pace(schedule, max(a, b), curvature)


@given(st.floats(0.1, 20), SHARES)
def test_f2_hardens_early_and_f3_late(curvature, progress):
    assert pace("f1", progress, curvature) == progress
    assert pace("f2", progress, curvature) >= progress - 1e-12
    assert pace("f3", progress, curvature) <= progress + 1e-12


def test_the_pace_in_the_middle():
    """c = 2 ln 3: (1 - 1/3) / (1 - 1/9) = 3/4 and (3 - 1) / (9 - 1) = 1/4."""
    assert pace("f2", 0.5, 2 * math.log(3)) == pytest.approx(3 / 4)
    assert pace("f3", 0.5, 2 * math.log(3)) == pytest.approx(1 / 4)


@pytest.mark.parametrize(("progress", "side"), [(0.0, 1.0), (0.5, math.sqrt(0.6)), (1.0, math.sqrt(0.2))])
def test_the_crop_shrinks_to_a_fifth_of_the_area(progress, side):
    method = SinGeo(SinGeoConfig(photo_rotation_deg=0, centre_jitter=0), SHAPE)
    photo = ramps(40, 3)
    seen = method.views(batch_of(photo, photo), progress, seeded(0))["photo*"]
    torch.testing.assert_close(seen, side * photo, atol=1e-6, rtol=0)


def test_a_moved_crop_stays_inside_the_picture():
    """Ramps reach 1 - 1/40 in the middle of the last pixel; a crop that left the picture would be mirrored back."""
    method = SinGeo(SinGeoConfig(photo_rotation_deg=0, centre_jitter=0.5, crop_area=(0.64, 0.64)), SHAPE)
    photo = ramps(40, 200)
    seen = method.views(batch_of(photo, photo), 1.0, seeded(0))["photo*"]
    centre = seen.mean((2, 3))
    torch.testing.assert_close(seen - centre[:, :, None, None], 0.8 * photo, atol=0.01, rtol=0)
    assert centre.abs().max() <= 0.2 + 1e-6
    assert centre.amax() > 0.19
    assert centre.amin() < -0.19


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.5, 0.35), (1.0, 0.7)])
def test_quarter_turns_of_the_tile_grow_likelier(progress, expected):
    """Kept upright with 1 → 0.3, as the authors' University-1652 recipe does, and never turned by 180°."""
    method = SinGeo(SinGeoConfig(), SHAPE)
    tile = ramps(4, 4000)
    seen = method.views(batch_of(tile, tile), progress, seeded(0))["tile*"]
    found = [
        (seen - torch.rot90(tile, turns, (2, 3))).abs().amax((1, 2, 3)).lt(1e-5).double().mean().item()
        for turns in range(4)
    ]
    assert sum(found) == pytest.approx(1)
    # 4000 draws: five deviations of a share of 1/4 are 0.034
    assert found == pytest.approx([1 - expected, expected / 2, 0, expected / 2], abs=0.034)


@pytest.mark.parametrize(("progress", "bound_deg"), [(0.0, 0.0), (0.5, 90.0), (1.0, 180.0)])
def test_free_turns_of_the_tile_grow_wider(progress, bound_deg):
    method = SinGeo(SinGeoConfig(tile_rotation="continuous", corners="inscribed"), SHAPE)
    tile = ramps(16, 500)
    seen = method.views(batch_of(tile, tile), progress, seeded(0))["tile*"]
    # rightward slope of channels x, y: (cos, sin) of the turn times the side of the crop
    slope = (seen[:, :, 8, 15] - seen[:, :, 8, 0]) / (tile[0, 0, 0, 15] - tile[0, 0, 0, 0])
    torch.testing.assert_close(slope.norm(dim=1), torch.full((500,), math.sqrt(0.5), dtype=torch.float64))
    angle = torch.rad2deg(torch.atan2(slope[:, 1], slope[:, 0]))
    assert angle.abs().max() <= bound_deg + 1e-3
    assert angle.max() >= 0.95 * bound_deg - 1e-3
    assert angle.min() <= -0.95 * bound_deg + 1e-3


@pytest.mark.parametrize("settings", [{}, {"tile_rotation": "continuous", "corners": "inscribed"}])
def test_views_are_a_function_of_the_generator(settings):
    method, images = SinGeo(SinGeoConfig(**settings), SHAPE), torch.rand(3, 3, 8, 8, generator=seeded(9))
    state = torch.get_rng_state()
    first, again, other = (method.views(batch_of(images, images), 0.7, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(first) == ["photo", "tile", "photo*", "tile*"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["photo*"], other["photo*"])
    assert first["photo"] is images


# --- turning and cropping ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("side", [7, 8])
def test_a_quarter_turn_is_rot90(turns, side):
    images = torch.rand(2, 3, side, side, generator=seeded(0))
    turned = turn_and_crop(images, torch.full((2,), 90.0 * turns))
    torch.testing.assert_close(turned, torch.rot90(images, turns, (2, 3)), atol=1e-5, rtol=0)


@given(st.floats(-360, 360), st.floats(0.1, 0.6), st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
@settings(max_examples=50)
def test_turns_and_crops_are_their_formula(angle_deg, side, right, down):
    """Inside the picture, ramps stay ramps: counter-clockwise content means clockwise sampling (y is down)."""
    a, ramp = math.radians(angle_deg), ramps(20)
    centre = torch.tensor([[right, down]], dtype=torch.float64)
    turned = turn_and_crop(ramp, torch.tensor([angle_deg], dtype=torch.float64), side=side, centre=centre)
    x, y = ramp[0]
    expected_x = side * (math.cos(a) * x - math.sin(a) * y) + 2 * right
    expected_y = side * (math.sin(a) * x + math.cos(a) * y) + 2 * down
    torch.testing.assert_close(turned[0], torch.stack((expected_x, expected_y)), atol=1e-9, rtol=0)


@given(st.floats(-180, 180), st.floats(0.2, 1))
@settings(max_examples=50)
def test_no_corner_is_black(angle_deg, side):
    turned = turn_and_crop(torch.ones(1, 3, 9, 9), torch.tensor([angle_deg]), side=side)
    torch.testing.assert_close(turned, torch.ones(1, 3, 9, 9))


def test_the_inscribed_view_is_of_the_picture_alone():
    """At every angle the view shows the plain ramp: nothing mirrored, and nothing of the zoom tells the angle."""
    config = SinGeoConfig(photo_rotation_deg=180, corners="inscribed", centre_jitter=0)
    seen = SinGeo(config, SHAPE).views(batch_of(ramps(32, 50), ramps(32, 50)), 0.0, seeded(0))["photo*"]
    x, y = ramps(32)[0]
    for turned in seen:
        slope_x, slope_y = ((turned[c, 16, 31] - turned[c, 16, 0]) / (x[0, 31] - x[0, 0]) for c in (0, 1))
        assert math.hypot(slope_x, slope_y) == pytest.approx(math.sqrt(0.5), rel=1e-6)
        expected = torch.stack((slope_x * x - slope_y * y, slope_y * x + slope_x * y))
        torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


# --- loss --------------------------------------------------------------------------------------------------------


def unit(seed, dtype=torch.float64):
    x = torch.randn(4, 5, dtype=dtype, generator=seeded(seed))
    return x / x.norm(dim=1, keepdim=True)


NAMES = ("photo", "tile", "photo*", "tile*")


def losses(method, embeddings):
    features = {name: Features(x) for name, x in zip(NAMES, embeddings, strict=True)}
    return method(features, batch_of(torch.zeros(4, 3, 1, 1), torch.zeros(4, 3, 1, 1)))


def test_the_loss_is_its_weighted_sum():
    config = SinGeoConfig(weights=(0.1, 0.2, 0.4), disc_weight=0.8, label_smoothing=0.1)
    g, s, g_, s_ = (unit(seed) for seed in range(4))

    def loss(a, b):
        return info_nce(a, b, torch.tensor(1 / 0.07, dtype=torch.float64), label_smoothing=0.1)

    cross = loss(g, s) + 0.1 * loss(g_, s) + 0.2 * loss(g, s_) + 0.4 * loss(g_, s_)
    disc = loss(g_, g) + loss(s_, s)
    actual = losses(SinGeo(config, SHAPE).double(), (g, s, g_, s_))
    assert set(actual) == {"loss", "cross", "disc"}
    torch.testing.assert_close(actual["cross"], cross, rtol=1e-6, atol=0)
    torch.testing.assert_close(actual["disc"], disc, rtol=1e-6, atol=0)
    torch.testing.assert_close(actual["loss"], cross + 0.8 * disc, rtol=1e-6, atol=0)


def test_equal_embeddings_cost_the_logarithm_of_the_batch():
    """Every InfoNCE is log 4; the authors' weights for University-1652: 1 + 0.5 + 0.5 + 1 + 0.5 · 2 of them."""
    same = torch.full((4, 5), 5**-0.5, dtype=torch.float64)
    assert losses(SinGeo(SinGeoConfig(), SHAPE), [same] * 4)["loss"].item() == pytest.approx(4 * math.log(4))


def test_gradients_agree_with_finite_differences():
    method = SinGeo(SinGeoConfig(), SHAPE).double()
    embeddings = [unit(seed).requires_grad_() for seed in range(4)]
    torch.autograd.gradcheck(lambda *inputs: losses(method, inputs)["loss"], embeddings)


def test_every_view_and_the_temperature_learn():
    method = SinGeo(SinGeoConfig(), SHAPE).double()
    embeddings = [unit(seed).requires_grad_() for seed in range(4)]
    losses(method, embeddings)["loss"].backward()
    assert all(x.grad.abs().max() > 1e-3 for x in embeddings)
    assert method.log_scale.grad.abs() > 1e-3


@pytest.mark.parametrize("bad", [{"crop_area": (1.0, 0.0)}, {"schedule": "f4"}, {"tile_rotation_deg": (0, 270)}])
def test_knobs_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        SinGeoConfig(**bad)


# --- learning ----------------------------------------------------------------------------------------------------


def test_eight_places_are_learnt_by_heart():
    """Tiles are soft noise, photos the same noise in other colours, upside down."""
    torch.manual_seed(0)
    encoder = Encoder(
        ModelConfig("test_efficientnet", weights="none", embedding_dim=32, image_size=64, frozen_stages=0)
    )
    coarse = torch.rand(8, 3, 8, 8, generator=seeded(0))
    tile = torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear")
    batch = batch_of(1 - tile.flip(1, 2, 3), tile)
    method = SinGeo(SinGeoConfig(), SHAPE)
    optimizer = torch.optim.AdamW(itertools.chain(encoder.parameters(), method.parameters()), lr=1e-3)

    def embed(images):
        return encoder.features(images.mul(255).permute(0, 2, 3, 1))

    def recall():
        with torch.no_grad():
            scores = embed(batch.photo).embedding @ embed(batch.tile).embedding.T
        return (scores.argmax(1) == batch.place).double().mean().item()

    before, steps = recall(), 40
    for step in range(steps):
        views = method.views(batch, step / steps, seeded(step))
        joined = embed(torch.cat(list(views.values()))).embedding.chunk(4)
        loss = method({name: Features(x) for name, x in zip(views, joined, strict=True)}, batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.6
    assert recall() == 1


def numbered_columns(width):
    """Panoramas ``[64, 3, 8, width]`` whose pixels are the numbers of their columns."""
    return torch.arange(width, dtype=torch.float32).expand(64, 3, 8, width).clone()


@pytest.mark.parametrize(("progress", "width"), [(0.0, 384), (0.5, 224), (1.0, 64)])
def test_panoramas_are_shifted_and_cut_to_a_field_of_view(progress, width):
    """From 360° to 70° of 384 columns (75, and 64 is the nearest multiple of 32), at any heading, never squeezed."""
    method = SinGeo(SinGeoConfig(photo_view="pan"), SHAPE)
    panorama = numbered_columns(384)
    seen = method.views(batch_of(panorama, ramps(8, 64)), progress, seeded(0))["photo*"]
    assert seen.shape == (64, 3, 8, width)
    first = seen[:, 0, 0, 0]
    expected = (first[:, None] + torch.arange(width)) % 384
    assert torch.equal(seen[:, 0, 0], expected)
    assert len(first.unique()) > 40
    assert torch.equal(method.mined(panorama, progress), panorama[..., :width])


def test_hard_negatives_are_mined_at_the_current_crop():
    method = SinGeo(SinGeoConfig(crop_area=(1.0, 0.25)), SHAPE)
    photo = ramps(8, 3)
    torch.testing.assert_close(method.mined(photo, 0.0), photo)
    middle = torch.nn.functional.interpolate(photo[..., 2:6, 2:6], size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(method.mined(photo, 1.0)[..., 1:7, 1:7], middle[..., 1:7, 1:7])
