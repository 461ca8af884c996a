"""Tiny generated places, and a camera written a second time: float64, from rotations and a homography."""

import math

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio import Affine

from training.config import parse_config
from training.data.simulator.scene import Scene


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and sums in one order are the same every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def camera_rotation(heading_deg, pitch_deg):
    """Rows: right, down, forward. A camera that looks down with north on top, tilted up, then turned clockwise."""
    tilt, turn = math.radians(90 - pitch_deg), math.radians(heading_deg)
    looking_down = np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1.0]])
    about_right = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]],
    )
    clockwise = np.array([[math.cos(turn), math.sin(turn), 0], [-math.sin(turn), math.cos(turn), 0], [0, 0, 1.0]])
    return looking_down @ about_right.T @ clockwise.T


def camera_matrix(heading_deg, pitch_deg, hfov_deg, width, height):
    """``K R``: scene directions to homogeneous pixels."""
    focal = width / 2 / math.tan(math.radians(hfov_deg) / 2)
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]) @ camera_rotation(
        heading_deg, pitch_deg
    )


@pytest.fixture(scope="session")
def projected():
    """``projected(pose, points, width, height)``: pixels ``[P, 2]`` of scene points ``[P, 3]``.

    A pose is ``(east_m, north_m, up_m, heading_deg, pitch_deg, hfov_deg)``.
    """

    def project(pose, points, width, height):
        pixels = camera_matrix(*pose[3:], width, height) @ (np.asarray(points, float) - pose[:3]).T
        return (pixels[:2] / pixels[2]).T

    return project


@pytest.fixture(scope="session")
def flat_ground():
    """``flat_ground(pose, pixels, width, height)``: points ``[P, 2]`` of the plane up = 0 that pixels ``[P, 2]`` show.

    The third column of the homography of a plane z = 0 is ``-K R C`` (Hartley and Zisserman, 8.1.1). A pixel above the
    horizon gives NaN.
    """

    def ground(pose, pixels, width, height):
        matrix = camera_matrix(*pose[3:], width, height)
        homography = np.column_stack((matrix[:, 0], matrix[:, 1], -matrix @ np.asarray(pose[:3], float)))
        plane = np.linalg.inv(homography) @ np.column_stack((pixels, np.ones(len(pixels)))).T
        # the homography's third row gives the depth, so the inverse's third entry is 1 / depth
        return np.where(plane[2] > 0, plane[:2] / plane[2], np.nan).T

    return ground


def wave_colour(points):
    """RGB ``[P, 3]`` of a made-up country, smooth at the scale of pixels, at points ``[P, 2]`` in metres."""
    east, north = np.asarray(points, float).T
    waves = [(31.0, 47.0, 0.3), (-41.0, 29.0, 1.1), (53.0, -37.0, 2.2)]
    return np.stack([0.5 + 0.4 * np.sin(2 * np.pi * (east / a + north / b) + c) for a, b, c in waves], axis=-1)


@pytest.fixture(scope="session")
def waves():
    return wave_colour


@pytest.fixture(scope="session")
def make_scene():
    """``make_scene(width_m, depth_m, gsd_m, heights)``: the wavy country, flat unless heights ``[h, w]`` are given."""

    def make(width_m=200.0, depth_m=160.0, gsd_m=0.5, heights=None):
        cols, rows = round(width_m / gsd_m), round(depth_m / gsd_m)
        east = (np.arange(cols) + 0.5 - cols / 2) * gsd_m
        north = (rows / 2 - np.arange(rows) - 0.5) * gsd_m
        grid = np.stack(np.meshgrid(east, north), axis=-1).reshape(-1, 2)
        texture = torch.from_numpy(wave_colour(grid).reshape(rows, cols, 3)).permute(2, 0, 1).float()
        field = np.zeros((round(depth_m), round(width_m))) if heights is None else heights
        return Scene(texture[None], torch.from_numpy(np.asarray(field, np.float32))[None], gsd_m)

    return make


@pytest.fixture(scope="session")
def write_tiff():
    """``write_tiff(path, pixels [bands, H, W], crs, west, north, pixel size)`` writes a GeoTIFF, returns its path."""

    def write(path, pixels, crs, west, north, size, **options):
        bands, rows, cols = pixels.shape
        profile = {
            "driver": "GTiff",
            "count": bands,
            "height": rows,
            "width": cols,
            "dtype": pixels.dtype,
            "crs": crs,
            "transform": Affine(size, 0, west, 0, -size, north),
        }
        with rasterio.open(path, "w", **(profile | options)) as file:
            file.write(pixels)
        return path

    return write


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory):
    """A folder with 24 pictures of soft patches, unlike each other, in ``a/`` and ``b/``."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((150, 130), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def tiny_config(picture_folder, tmp_path):
    """``tiny_config(section={...})``: a run that takes seconds: 100 k weights, 64 px, eight pictures, 30 m tiles."""

    def make(**sections):
        tree = {
            "name": "tiny",
            "model": {
                "backbone": "test_efficientnet",
                "weights": "none",
                "embedding_dim": 32,
                "image_size": 64,
                "frozen_stages": 0,
            },
            "data": {
                "root": str(picture_folder),
                "textures": ["a/*.png"],
                "held_out_share": 0.0,
                "tile_side_m": 30.0,
                "window_px": [100, 130],
            },
            "optim": {"batch_pairs": 6, "steps": 4, "warmup_steps": 1},
            "run": {"out": str(tmp_path / "run"), "device": "cpu"},
        }
        for name, section in sections.items():
            tree[name] = tree.get(name, {}) | section if isinstance(section, dict) else section
        return parse_config(tree)

    return make
