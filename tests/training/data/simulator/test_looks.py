import numpy as np
import pytest
import torch

from training.data.simulator.drone import Drone
from training.data.simulator.looks import flat_positions, flat_rays
from training.data.simulator.pairs import cut_tiles
from training.data.simulator.render import Camera, render
from training.data.simulator.scene import Scene
from training.data.simulator.simulated import SimulatedConfig

SIZE = 32


@pytest.fixture(scope="module")
def flat():
    """200 m of flat ground with soft colours."""
    coarse = torch.rand(1, 3, 14, 14, generator=torch.Generator().manual_seed(2))
    texture = torch.nn.functional.interpolate(coarse, (400, 400), mode="bicubic").clamp(0, 1)
    return Scene(texture, torch.zeros(1, 200, 200), 0.5)


def camera(pitch_deg, heading_deg=0.0):
    numbers = (10.0, -5.0, 70.0, heading_deg, pitch_deg, 60.0)
    return Camera.looking_at(*(torch.tensor([value]) for value in numbers))


@pytest.mark.parametrize("pitch_deg", [90.0, 60.0, 40.0])
def test_laid_flat_by_its_pitch_a_photo_is_the_map(flat, pitch_deg):
    rays, inside = flat_rays(camera(pitch_deg), torch.tensor([pitch_deg]), torch.tensor([40.0]), SIZE)
    look = render(flat, camera(pitch_deg), SIZE, SIZE, rays=rays)
    tile = cut_tiles(flat, torch.tensor([[10.0, -5.0]]), 40.0, SIZE)
    assert inside.float().mean() > 0.9
    assert (look.image - tile).abs().mean() < 0.01


def test_headings_turn_the_look(flat):
    rays, _ = flat_rays(camera(50.0, 90.0), torch.tensor([50.0]), torch.tensor([40.0]), SIZE)
    look = render(flat, camera(50.0, 90.0), SIZE, SIZE, rays=rays)
    tile = cut_tiles(flat, torch.tensor([[10.0, -5.0]]), 40.0, SIZE)
    assert (look.image - tile.rot90(1, (2, 3))).abs().mean() < 0.01  # east is up


def test_a_wrong_pitch_keeps_the_centre_and_stretches_the_rest(flat):
    rays, _ = flat_rays(camera(60.0), torch.tensor([45.0]), torch.tensor([40.0]), SIZE + 1)
    ground = render(flat, camera(60.0), SIZE + 1, SIZE + 1, rays=rays).ground[0]
    np.testing.assert_allclose(ground[SIZE // 2, SIZE // 2, :2], (10, -5), atol=0.01)
    ahead = ground[:, SIZE // 2, 1]
    assert 3 < abs(float(ahead[0] - ahead[-1]) - 40) < 16


def test_positions_are_those_of_the_ground_in_the_photo():
    """Against the camera's own projection of the look's corner on the ground."""
    up_m, side_m = 70 * np.sin(np.radians(50)), 40.0
    across, upward = flat_positions(torch.tensor([up_m]), torch.tensor([50.0]), torch.tensor([side_m]), 2)
    pose = camera(50.0)
    corner = torch.tensor([[[10 - 10.0, -5 + 10.0, 0.0]]])  # the middle of the first of two by two parts
    pixel = pose.project(corner, 200, 200)[0, 0]
    focal = float(pose.focal_px(200))
    np.testing.assert_allclose(across[0, 0], (pixel[0] - 100) / focal, atol=1e-4)
    np.testing.assert_allclose(upward[0, 0], (100 - pixel[1]) / focal, atol=1e-4)


def test_beyond_the_frame_a_look_is_grey_and_knows_no_ground(flat):
    flight = SimulatedConfig(tile_side_m=60.0, flat_share=1.0, pitch_deg=(40.0, 40.0), scale=(1.0, 1.0))
    views = Drone(flight, SIZE).looks(flat, torch.zeros(1, 2), torch.Generator().manual_seed(1))
    outside = views.ground.isnan().any(3)[0]
    assert 0 < outside.float().mean() < 0.5
    assert views.image[0, :, outside].std() < 1e-6
    assert torch.equal(views.valid[0], ~outside)
