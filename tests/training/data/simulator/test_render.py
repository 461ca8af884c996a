import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from training.data.simulator.render import SKY_RGB, Camera, render, surface_m
from training.data.simulator.scene import Scene, raise_blocks
from training.errors import TrainingError

W, H = 32, 24

poses = st.tuples(
    st.floats(-40, 40, width=32),
    st.floats(-30, 30, width=32),
    st.floats(25, 150, width=32),
    st.floats(0, 360, width=32),
    st.floats(20, 90, width=32),
    st.floats(30, 90, width=32),
)


def pixel_centres(width=W, height=H):
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.column_stack((cols.ravel(), rows.ravel()))


def height_at(heights, points):
    """Bilinear, float64, edge continued: heights ``[h, w]`` of 1 m cells, centred; points ``[..., 2]``."""
    rows, cols = heights.shape
    col = np.clip(points[..., 0] + cols / 2 - 0.5, 0, cols - 1)
    row = np.clip(rows / 2 - points[..., 1] - 0.5, 0, rows - 1)
    c, r = np.minimum(col.astype(int), cols - 2), np.minimum(row.astype(int), rows - 2)
    x, y = col - c, row - r
    top = heights[r, c] * (1 - x) + heights[r, c + 1] * x
    bottom = heights[r + 1, c] * (1 - x) + heights[r + 1, c + 1] * x
    return top * (1 - y) + bottom * y


def boxes():
    """120 m by 100 m with four boxes and a slope, on 1 m cells."""
    heights = np.add.outer(np.zeros(100), np.linspace(0, 3, 120))
    for row, col, tall in ((20, 30, 12), (45, 70, 8), (70, 25, 15), (60, 95, 5)):
        heights[row : row + 12, col : col + 14] += tall
    return heights


# --- flat ground: closed form ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(poses)
def test_on_flat_ground_every_pixel_shows_what_the_homography_says(make_scene, flat_ground, waves, pose):
    scene = make_scene()
    views = render(scene, Camera.single(*pose), W, H)
    expected = flat_ground(pose, pixel_centres(), W, H)
    on_map = (np.abs(expected[:, 0]) < 99.9) & (np.abs(expected[:, 1]) < 79.9)
    off_map = ~((np.abs(expected[:, 0]) < 100.1) & (np.abs(expected[:, 1]) < 80.1))

    valid = views.valid[0].flatten().numpy()
    assert valid[on_map].all()
    assert not valid[off_map].any()
    ground = views.ground[0].flatten(0, 1).double().numpy()
    assert np.isnan(ground[~valid]).all()
    np.testing.assert_allclose(ground[on_map, :2], expected[on_map], atol=2e-3)
    np.testing.assert_allclose(ground[on_map, 2], 0, atol=1e-3)

    colours = views.image[0].flatten(1).T.double().numpy()
    inner = (np.abs(expected[:, 0]) < 99.5) & (np.abs(expected[:, 1]) < 79.5)
    np.testing.assert_allclose(colours[inner], waves(expected[inner]), atol=2e-3)
    np.testing.assert_allclose(colours[off_map], np.broadcast_to(SKY_RGB, (off_map.sum(), 3)), atol=1e-6)


@settings(max_examples=40)
@given(poses)
def test_centre_and_footprint_are_the_ground_of_the_image_centre_and_corners(make_scene, flat_ground, pose):
    views = render(make_scene(), Camera.single(*pose), W, H)
    corners = [(0, 0), (W, 0), (W, H), (0, H), (W / 2, H / 2)]
    expected = flat_ground(pose, corners, W, H)
    seen = np.vstack((views.footprint[0], views.centre[0, :2])).astype(float)
    on_map = (np.abs(expected) < (99.9, 79.9)).all(1)
    off_map = ~(np.abs(expected) < (100.1, 80.1)).all(1)
    np.testing.assert_allclose(seen[on_map], expected[on_map], atol=2e-3)
    assert np.isnan(seen[off_map]).all()


@settings(max_examples=30)
@given(poses, st.floats(-50, 50, width=32), st.floats(-50, 50, width=32))
def test_looking_at_hits_its_target(make_scene, pose, east, north):
    distance, (heading, pitch, hfov) = pose[2], pose[3:]
    camera = Camera.looking_at(*(torch.tensor([v]) for v in (east, north, distance, heading, pitch, hfov)))
    centre = render(make_scene(), camera, W, H).centre[0]
    np.testing.assert_allclose(centre, (east, north, 0), atol=2e-3)
    assert torch.linalg.norm(camera.position[0] - centre).item() == pytest.approx(distance, abs=2e-3)


def test_the_photo_top_points_where_the_heading_says(make_scene):
    ground = render(make_scene(), Camera.single(0, 0, 60, 90, 90, 60), W, H).ground[0]
    assert ground[0, W // 2, 0] > 10 > abs(ground[0, W // 2, 1])  # east is up
    assert ground[H // 2, W - 1, 1] < -10  # so south is right


# --- relief ------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(poses, st.integers(0, 5))
def test_ground_truth_reprojects_to_its_pixel(make_scene, projected, pose, seed):
    scene = make_scene(heights=raise_blocks(200, 160, np.random.default_rng(seed)))
    views = render(scene, Camera.single(*pose), W, H)
    valid = views.valid[0].flatten().numpy()
    points = views.ground[0].flatten(0, 1).double().numpy()[valid]
    gaps = np.linalg.norm(projected(pose, points, W, H) - pixel_centres()[valid], axis=1)
    assert gaps.max(initial=0) <= 0.1
    heights = scene.height_m[0].double().numpy()
    np.testing.assert_allclose(points[:, 2], height_at(heights, points[:, :2]), atol=0.05)


@pytest.mark.parametrize(("heading", "pitch"), [(20, 25), (130, 40), (250, 60), (320, 85)])
def test_hits_agree_with_brute_force_ray_marching(make_scene, heading, pitch):
    """Rays in steps of 2 cm, float64: the first sample under the surface is the hit."""
    heights = boxes()
    camera = Camera.looking_at(*(torch.tensor([float(v)]) for v in (0, 0, 75, heading, pitch, 50)))
    views = render(make_scene(120, 100, heights=heights), camera, W, H)
    origin, rays = camera.position[0].double().numpy(), camera.rays(W, H)[0].double().numpy()
    brute = np.full((W * H, 3), np.nan)
    for i, ray in enumerate(rays):
        t = np.arange(20, -origin[2] / min(ray[2], -0.02) + 0.04, 0.02)
        points = origin + t[:, None] * ray
        under = points[:, 2] <= height_at(heights, points)
        first = points[under.argmax()]
        if under.any() and abs(first[0]) < 60 and abs(first[1]) < 50:
            brute[i] = first
    ours = views.ground[0].flatten(0, 1).double().numpy()
    both_sky = np.isnan(ours[:, 0]) & np.isnan(brute[:, 0])
    agree = (np.linalg.norm(ours - brute, axis=1) < 0.05) | both_sky
    # a march in steps of a cell may pass over the last metre of an edge (next test); nothing else may differ
    assert agree.mean() > 0.98
    assert (np.nan_to_num(brute[:, 2]) > 5).mean() > 0.05  # boxes are in view


@settings(max_examples=20)
@given(st.floats(0, 360, width=32), st.floats(20, 90, width=32), st.integers(0, 3))
def test_nothing_thicker_than_a_step_stands_between_camera_and_hit(make_scene, heading, pitch, seed):
    heights = raise_blocks(120, 100, np.random.default_rng(seed), cover=0.3)
    scene = make_scene(120, 100, heights=heights)
    camera = Camera.looking_at(*(torch.tensor([float(v)]) for v in (0, 0, 80, heading, pitch, 50)))
    assume(camera.up_m.item() > surface_m(scene, camera.position[:, None, :2]).item())
    views = render(scene, camera, W, H)
    hits = views.ground[0][views.valid[0]].double().numpy()
    rays = hits - camera.position[0].double().numpy()
    path = hits[:, None] - np.linspace(0.001, 0.9, 1500)[None, :, None] * rays[:, None]
    inside = path[..., 2] < height_at(heights.astype(float), path) - 0.02
    sample = np.arange(1500)
    run = sample - np.maximum.accumulate(np.where(inside, -1, sample), axis=1)  # samples since the last in the open
    thickness_m = run.max(1) / 1500 * 0.9 * np.hypot(rays[:, 0], rays[:, 1])
    # a step is a cell (1 m), or a 128th of the longest way through the relief when that is more (here 156 m / 128)
    assert thickness_m.max() < 1.3
    assert (thickness_m == 0).mean() > 0.95


def wall_scene(make_scene, tall=10.0):
    """A wall along the whole width, 6 m thick, on cells of 25 cm: it is full height up to 2.875 m north."""
    heights = np.zeros((640, 240))
    heights[308:332] = tall
    return make_scene(60, 160, heights=heights)


def test_a_wall_hides_the_ground_behind_it(make_scene):
    """Similar triangles: a wall of height h whose rear edge is d from a camera at H hides h d / (H - h) of ground."""
    tall, up, south, edge = 10.0, 40.0, -50.0, 2.875
    ground = render(wall_scene(make_scene), Camera.single(0, south, up, 0, 30, 0.107), 4, 600).ground[0, :, 2]
    behind = ground[(ground[:, 2] < 0.05) & (ground[:, 1] > edge), 1].min().item()
    pixel_m, step_m = 0.1, 0.25
    hidden = tall * (edge - south) / (up - tall)
    assert edge + hidden - step_m - pixel_m < behind < edge + hidden + pixel_m
    assert ((ground[:, 2] > 9.99) & (ground[:, 1] < edge + 0.01)).sum() > 10  # the roof shows


def test_a_roof_leans_outward(make_scene):
    """Seen from straight above, a point of height h at distance d appears at f d / (H - h), not f d / H."""
    heights = np.zeros((160, 200))
    heights[40:60, 140:160] = 12.0  # roof centre: 50 m east, 30 m north
    scene = make_scene(heights=heights)
    texture = torch.full_like(scene.texture, 0.2)
    texture[:, 0, 90:110, 290:310] = 1.0  # a red mark of 10 m on the middle of the roof
    scene = Scene(texture, scene.height_m, scene.gsd_m)
    width, height, up, hfov = 400, 300, 100.0, 70.0
    red = render(scene, Camera.single(0, 0, up, 0, 90, hfov), width, height).image[0, 0] > 0.6
    row, col = np.argwhere(red.numpy()).mean(0) + 0.5
    focal = width / 2 / math.tan(math.radians(hfov / 2))
    assert col - width / 2 == pytest.approx(focal * 50 / (up - 12), abs=0.3)
    assert height / 2 - row == pytest.approx(focal * 30 / (up - 12), abs=0.3)


def test_walls_are_darker_than_roofs(make_scene):
    scene = wall_scene(make_scene)
    scene = Scene(torch.full_like(scene.texture, 0.8), scene.height_m, scene.gsd_m)
    views = render(scene, Camera.single(0, -50, 40, 0, 35, 0.25), 4, 600)
    _, north, up = views.ground[0, :, 2].T
    image = views.image[0, 0, :, 2]
    assert image[(up > 2) & (up < 8)].max() < 0.7
    assert image[north < -4].min() > 0.79
    assert image[(up > 9.99) & (north > -2) & (north < 2)].min() > 0.79


# --- sky and the map's edge --------------------------------------------------------------------------------------


def test_above_the_horizon_is_sky(make_scene):
    views = render(make_scene(), Camera.single(0, 0, 50, 0, 20, 90), W, H)
    assert not views.valid[0, 0].any()
    assert views.ground[0, 0].isnan().all()
    assert views.footprint[0, :2].isnan().all()
    np.testing.assert_allclose(views.image[0, :, 0], np.broadcast_to(np.array(SKY_RGB)[:, None], (3, W)), atol=1e-6)


def test_reflect_mirrors_the_map_and_keeps_the_truth(make_scene, flat_ground, waves):
    pose = (80.0, 0.0, 60.0, 90.0, 70.0, 50.0)  # sees 60 to 130 m east; the map ends at 100
    scene, camera = make_scene(), Camera.single(*pose)
    sky, mirrored = render(scene, camera, W, H), render(scene, camera, W, H, outside="reflect")
    assert torch.equal(sky.valid, mirrored.valid)
    assert not sky.valid.all()
    torch.testing.assert_close(sky.ground, mirrored.ground, equal_nan=True, atol=1e-3, rtol=0)
    expected = flat_ground(pose, pixel_centres(), W, H)
    beyond = expected[:, 0] > 100.5
    assert beyond.sum() > 20
    expected[:, 0] = np.where(beyond, 200 - expected[:, 0], expected[:, 0])
    inner = np.abs(expected[:, 0]) < 99.5
    np.testing.assert_allclose(mirrored.image[0].flatten(1).T[inner], waves(expected[inner]), atol=2e-3)


def test_a_camera_beside_the_map_sees_it_or_nothing(make_scene):
    scene = make_scene(heights=raise_blocks(200, 160, np.random.default_rng(0)))
    towards = render(scene, Camera.single(150, 0, 60, 270, 45, 50), W, H)
    away = render(scene, Camera.single(150, 0, 60, 90, 45, 50), W, H)
    assert towards.valid[0, : H // 2].all()
    assert not away.valid.any()


# --- batches and errors ------------------------------------------------------------------------------------------


def test_a_batch_is_the_same_as_single_views(make_scene):
    several = [make_scene(heights=raise_blocks(200, 160, np.random.default_rng(seed))) for seed in range(3)]
    pose = [(0, 0, 70, 30, 80, 60), (10, -20, 90, 200, 45, 50), (-20, 5, 60, 300, 30, 70)]
    cameras = Camera(*torch.tensor(pose, dtype=torch.float32).T)
    heights = torch.cat([s.height_m for s in several])
    batch = render(Scene(several[0].texture.repeat(3, 1, 1, 1), heights, 0.5), cameras, W, H)
    for i, scene in enumerate(several):
        single = render(scene, Camera.single(*map(float, pose[i])), W, H)
        for name in ("image", "ground", "valid", "centre", "footprint"):
            torch.testing.assert_close(getattr(batch, name)[i], getattr(single, name)[0], equal_nan=True)


def test_project_is_the_inverse_of_rays():
    camera = Camera.single(3, -4, 70, 123, 50, 65)
    points = camera.position[:, None] + 40 * camera.rays(W, H)
    torch.testing.assert_close(camera.project(points, W, H)[0].double().numpy(), pixel_centres(), atol=1e-3, rtol=0)


def test_a_camera_inside_a_box_is_refused(make_scene):
    with pytest.raises(TrainingError, match="raise up_m"):
        render(wall_scene(make_scene), Camera.single(0, 1, 9, 0, 60, 60), W, H)


def test_scenes_and_poses_must_fit(make_scene):
    scene = make_scene(20, 20)
    two = Scene(scene.texture.repeat(2, 1, 1, 1), scene.height_m.repeat(2, 1, 1), scene.gsd_m)
    with pytest.raises(TrainingError, match="2 scenes for 1 poses"):
        render(two, Camera.single(0, 0, 50, 0, 90, 60), W, H)


@pytest.mark.parametrize(
    ("pitch", "hfov", "name"), [(10, 60, "pitch"), (91, 60, "pitch"), (60, 0, "hfov"), (60, 150, "hfov")]
)
def test_poses_out_of_range_are_refused(pitch, hfov, name):
    with pytest.raises(TrainingError, match=f"{name}_deg must lie"):
        Camera.single(0, 0, 50, 0, float(pitch), float(hfov))
