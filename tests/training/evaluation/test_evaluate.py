import json

import pytest
import torch

from training.data.base import Task, same_place
from training.errors import TrainingError
from training.evaluation.evaluate import evaluate


class Counted:
    """A model that counts the images it sees; its embeddings are pixels of unit length."""

    model_id, image_size, resize = "counted", 8, "squash"

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return torch.nn.functional.normalize(images.flatten(1) - 0.5, dim=1).numpy()


class Pictures:
    """Noise, a little of it not the place's."""

    def __init__(self, places, strength, position=True):
        noise = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        own = torch.rand(len(places), 3, 8, 8, generator=torch.Generator().manual_seed(1))
        self.place = torch.tensor(places).numpy()
        self.images = (1 - strength) * noise[self.place] + strength * own
        self.name = [f"{place}.jpg" for place in places]
        self.position = torch.tensor([[50 + place / 1000, 8.0] for place in places]).double().numpy()

    def __len__(self):
        return len(self.name)

    def load(self, index):
        return self.images[list(index)]


@pytest.fixture
def tasks():
    """Both directions: 6 places asked for by drone, 10 on the map."""
    drone, asked, held = Pictures([0, 0, 1, 2, 3, 4, 5], 0.3), Pictures(range(6), 0), Pictures(range(10), 0)
    every = Pictures([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.3)
    return [
        Task("drone_to_satellite", drone, held, same_place(drone, held)),
        Task("satellite_to_drone", asked, every, same_place(asked, every)),
    ]


def test_both_galleries_in_both_directions(tasks, tmp_path, capsys):
    result = evaluate(Counted(), tasks, dataset="noise", gallery="both", json_path=tmp_path / "a" / "b.json")
    assert result["model"] == "counted"
    assert result["dataset"] == "noise"
    assert list(result["tasks"]) == ["drone_to_satellite", "satellite_to_drone"]
    sizes = {
        (name, protocol): tuple(result["tasks"][name][protocol]["counts"].values())
        for name in result["tasks"]
        for protocol in ("full", "filtered")
    }
    assert sizes == {
        ("drone_to_satellite", "full"): (7, 10, 0),
        ("drone_to_satellite", "filtered"): (7, 6, 0),
        ("satellite_to_drone", "full"): (6, 11, 0),
        ("satellite_to_drone", "filtered"): (6, 7, 0),
    }
    found = result["tasks"]["drone_to_satellite"]["full"]["metrics"]
    assert found["recall@1"] == found["ap"] == found["within_1m"] == 1
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == result
    shown = capsys.readouterr().out
    assert "full: 10" in shown
    assert "filtered: 6" in shown


@pytest.mark.parametrize(("dataset", "shown"), [("university1652", 2), ("sues200", 2), ("vigor", 1), ("gta_uav", 1)])
def test_the_filtered_gallery_is_shown_where_figures_of_it_are_published(tasks, dataset, shown):
    outcome = evaluate(Counted(), tasks, dataset=dataset, quiet=True)["tasks"]["drone_to_satellite"]
    assert list(outcome) == ["full", "filtered"][:shown]


def test_the_same_model_and_data_give_the_same_file(tasks, tmp_path):
    for name in ("a.json", "b.json"):
        evaluate(Counted(), tasks, dataset="noise", robustness=True, json_path=tmp_path / name, quiet=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize("gallery", ["full", "filtered"])
def test_one_gallery_alone(tasks, gallery):
    found = evaluate(Counted(), tasks, dataset="noise", gallery=gallery, quiet=True)["tasks"]["drone_to_satellite"]
    assert list(found) == [gallery]


def test_images_that_two_tasks_share_are_embedded_once(tasks):
    drone, satellite = tasks[0].queries, tasks[0].gallery
    back = Task("satellite_to_drone", satellite, drone, same_place(satellite, drone))
    model = Counted()
    result = evaluate(model, [tasks[0], back], dataset="noise", quiet=True)
    assert model.seen == len(drone) + len(satellite)
    assert result["tasks"]["satellite_to_drone"]["full"]["counts"]["queries_without_positive"] == 4


@pytest.mark.parametrize("gallery", ["full", "filtered", "both"])
def test_robustness_begins_at_the_plain_recall(tasks, gallery):
    result = evaluate(Counted(), tasks, dataset="noise", gallery=gallery, robustness=True, quiet=True)
    for task in result["tasks"].values():
        judged = task["full" if gallery == "both" else gallery]["metrics"]["recall@1"]
        assert task["robustness"]["recall@1"][0][0] == judged == 1
        assert task["robustness"]["mean"] < 1


def test_flip_is_said_and_doubles_the_work(tasks):
    plain, flipped = Counted(), Counted()
    assert evaluate(plain, tasks, dataset="noise", quiet=True)["flip"] is False
    assert evaluate(flipped, tasks, dataset="noise", flip=True, quiet=True)["flip"] is True
    assert flipped.seen == 2 * plain.seen


def test_a_model_file_and_a_report(tiny_model, tasks, tmp_path, capsys):
    for images in (images for task in tasks for images in (task.queries, task.gallery)):
        images.images = torch.nn.functional.interpolate(images.images, (32, 32))
    result = evaluate(
        tiny_model(tmp_path / "m.onnx"), tasks, dataset="noise", report_dir=tmp_path / "report", quiet=True
    )
    assert result["model"] == "tiny-0"
    assert "tiny-0 on noise" in (tmp_path / "report" / "index.html").read_text()
    assert capsys.readouterr().out == ""


def test_unclear_wishes_are_refused(tasks):
    with pytest.raises(TrainingError, match="no gallery protocol 'half': choose full, filtered, both"):
        evaluate(Counted(), tasks, dataset="noise", gallery="half", quiet=True)
    with pytest.raises(TrainingError, match="each with a name of its own"):
        evaluate(Counted(), [tasks[0], tasks[0]], dataset="noise", quiet=True)
    with pytest.raises(TrainingError, match="one task or more"):
        evaluate(Counted(), [], dataset="noise", quiet=True)
