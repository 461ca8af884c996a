from types import SimpleNamespace

import pytest
import torch

from training.data.base import Task, same_place
from training.distributed import World
from training.evaluation import validate
from training.evaluation.validate import Validation
from training.models.encoder import Encoder

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(("room", "loads"), [(2**20, 1), (10, 2)])
def test_an_image_is_loaded_once_an_evaluation_or_once_in_all(room, loads, tiny_config, memory_images, monkeypatch):
    monkeypatch.setattr(validate, "KEEP_BYTES", room)
    config = tiny_config()
    pictures = torch.rand(7, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    queries, gallery = memory_images(pictures[:3], range(3)), memory_images(pictures, range(7))
    task = Task("t", queries, gallery, same_place(queries, gallery))
    validation = Validation(SimpleNamespace(tasks=lambda: [task]), config, 2, 1)
    encoder = Encoder(config.model)
    first, second = validation.measure(encoder, ALONE), validation.measure(encoder, ALONE)
    assert first == second
    assert first["t/recall@1"] == 1
    assert sorted(queries.loaded) == sorted([*range(3)] * loads)
    assert sorted(gallery.loaded) == sorted([*range(7)] * loads)
