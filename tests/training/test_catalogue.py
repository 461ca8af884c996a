"""Every config starts: two steps on a generated folder of the data set's real number of places, with a tiny network.

VIGOR (52,609 places) and GTA-UAV (some 10,000) are cut to 1,000: two steps do not tell the difference, linking files
would. Images are links to one tiny file. Batches are small, but for SUES-200, which has fewer places than some methods'
batches: its file says how many. One method is also judged on each data set, on two places or all of few.
"""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from training.catalogue import CONFIGS, configs, find_config
from training.checkpoint import load_encoder, write_encoder
from training.cli import app
from training.config import load_config
from training.data.sues200 import TEST_IDS
from training.errors import TrainingError
from training.models.encoder import Encoder
from training.train import fit

FEW = 1000
METHODS = [file.stem for file in configs()["methods"]]
DATA = [file.stem for file in configs()["data"]]
RECIPES = [file.stem for file in configs()["."]]
TINY = {
    "model.backbone": "test_convnext",
    "model.weights": "none",
    "model.image_size": 32,
    "model.frozen_stages": 0,
    "optim.steps": 2,
    "optim.epochs": "null",
    "run.workers": 0,
    "run.evaluate_every": "null",
    "run.evaluate_epochs": "null",
    "run.export": "null",
    "run.device": "cpu",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """``places(name)``: the folder of a data set, made once."""
    root = tmp_path_factory.mktemp("data")
    image = root / "image.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(image)
    made = {}

    def link(*paths):
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(image, path)

    def make(name):
        if name not in made:
            made[name] = root / name
            MAKERS[name](root / name, link)
        return made[name]

    return make


def university1652(root, link):
    """701 buildings to train on, two to be judged by."""
    for i in range(701):
        link(root / f"train/drone/{i:04d}/image-01.jpeg", root / f"train/satellite/{i:04d}/{i:04d}.jpg")
    for i in (800, 801):
        for view in ("query_drone", "gallery_drone", "query_satellite", "gallery_satellite"):
            link(root / f"test/{view}/{i:04d}/{i:04d}.jpg")


def sues200(root, link):
    """120 places to train on and 80 by the official list, at 150 m."""
    names = [f"{i:04d}" for i in range(1, 201)]
    assert len(set(names) - TEST_IDS) == 120
    for name in names:
        link(root / f"satellite-view/{name}/0.png", root / f"drone_view_512/{name}/150/0.jpg")


def denseuav(root, link):
    """2,256 points to train on; without the folders of the way back, as in copies that circulate."""
    lines = []
    for i in range(2258):
        name, part = f"{i:06d}", ("train/", "train/") if i < 2256 else ("test/query_", "test/gallery_")
        link(root / f"{part[0]}drone/{name}/H80.JPG", root / f"{part[1]}satellite/{name}/H80.tif")
        lines.append(f"{part[0]}drone/{name}/H80.JPG E{120 + i / 1e4} N30.0 80.5")
    (root / "Dense_GPS_ALL.txt").write_text("\n".join(lines))


def vigor(root, link):
    """A row of tiles in each city; every panorama lies in one and shows the next three."""
    for lat, city in enumerate(("Chicago", "NewYork", "SanFrancisco", "Seattle"), start=40):
        tiles = [f"satellite_{lat}.0_-70.{i:04d}.png" for i in range(FEW // 4 + 4)]
        panoramas = [f"p{i},{lat}.0,-70.{i:04d},.jpg" for i in range(FEW // 4)]
        link(*(root / city / "satellite" / tile for tile in tiles), *(root / city / "panorama" / p for p in panoramas))
        labels = root / "splits__corrected" / city
        labels.mkdir(parents=True)
        (labels / "satellite_list.txt").write_text("\n".join(tiles))
        lines = [f"{p} " + " ".join(f"{tile} 1 1" for tile in tiles[i : i + 4]) for i, p in enumerate(panoramas)]
        for part in ("train", "test"):
            (labels / f"same_area_balanced_{part}__corrected.txt").write_text("\n".join(lines))


def gta_uav(root, link):
    """A row of tiles, one photo on each, which its neighbour shows in part."""
    tiles, photos = [f"5_0_{i}_0.png" for i in range(FEW + 1)], [f"200_0001_{i:010d}.png" for i in range(FEW)]
    link(*(root / "satellite" / tile for tile in tiles), *(root / "drone/images" / photo for photo in photos))
    entries = [
        {
            "drone_img_dir": "drone/images",
            "drone_img_name": photo,
            "drone_loc_x_y": [350.0 * i, 100.0],
            "sate_img_dir": "satellite",
            "pair_pos_sate_img_list": [tiles[i]],
            "pair_pos_sate_weight_list": [0.6],
            "pair_pos_semipos_sate_img_list": [tiles[i], tiles[i + 1]],
            "pair_pos_semipos_sate_weight_list": [0.6, 0.2],
            "drone_metadata": {"height": 501.8},
        }
        for i, photo in enumerate(photos)
    ]
    for part in ("train", "test"):
        (root / f"cross-area-drone2sate-{part}.json").write_text(json.dumps(entries))


def simulated(root, link):
    """Twice as many pictures as a batch has."""
    link(*(root / f"{i}.jpg" for i in range(32)))


MAKERS = {maker.__name__: maker for maker in (university1652, sues200, denseuav, vigor, gta_uav, simulated)}
SMALL = {"optim.batch_pairs": 16}
PICTURES = SMALL | {"data.textures": '["*.jpg"]', "data.window_px": "[24, 32]", "data.held_out_share": 0}
#: Pictures of one date, rendered every time.
STILL = {"data.dates": "[]", "data.dates_held_out": "[]", "data.cache": "null", "model.start": "null"}


def start(names, root, out, **settings):
    """Two steps; the rows of the log."""
    given = TINY | {"data.root": root, "run.out": out} | settings
    config = load_config([find_config(name) for name in names], [f"{k}={v}" for k, v in given.items()])
    fit(config, quiet=True)
    log = (out / "log.csv").read_text().splitlines()
    losses = [float(row.split(",")[1]) for row in log[1:]]
    assert len(losses) == 2
    assert all(np.isfinite(losses))
    return config


def of_data(data):
    return {"simulated": PICTURES, "sues200": {}}.get(data, SMALL)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_starts_on_a_data_set(method, data, places, tmp_path):
    extra = of_data(data)
    if (method, data) == ("singeo", "vigor"):
        with pytest.raises(TrainingError, match=r"these are panoramas: train with --config singeo_panorama"):
            start([method, data], places(data), tmp_path / "run", **extra)
        extra = extra | {"data.panorama_aspect": 1}
    config = start([method, data], places(data), tmp_path / "run", **extra)
    assert config.name == f"{method}-{data}"
    assert config.data.dataset == data
    assert config.method_name == {"dphr": "sample4geo+dphr"}.get(method, method)


@pytest.mark.parametrize("data", DATA)
def test_a_model_is_judged_while_it_trains(data, places, tmp_path):
    extra = of_data(data) | {"run.evaluate_every": 2, "run.evaluate_queries": 4, "data.held_out_share": 0.4}
    del extra["data.held_out_share" if data != "simulated" else "run.evaluate_queries"]
    start(["sample4geo", data], places(data), tmp_path / "run", **extra)
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert any(name.endswith("/recall@1") for name in json.loads(line))


def test_singeo_starts_on_panoramas(places, tmp_path):
    config = start(["singeo_panorama"], places("vigor"), tmp_path / "run")
    assert (config.sampling.first, config.method.photo_view) == ("gps", "pan")
    published = load_config(find_config("singeo_panorama"))
    assert (published.optim.epochs, published.optim.batch_pairs, published.optim.lr) == (80, 16, 1e-4)


def test_the_recipe_that_whitens_starts(places, tmp_path):
    """With the pictures at hand, on an encoder by chance."""
    given = TINY | PICTURES | {"data.root": places("simulated"), "run.out": tmp_path / "run", **STILL}
    given |= {"model.image_size": 64, "model.embedding_dim": 8, "model.local_dim": "null"}
    given |= {"model.vlad_dim": 4, "model.vlad_centres": 3, "whiten.pairs": 32, "whiten.spot_dims": 5}
    options = [f"{k}={v}" for k, v in given.items()]
    config = load_config(find_config("lite2_whiten"), options)
    assert config.whiten is not None
    start = replace(config, model=replace(config.model, aggregation="gem", start=None))
    write_encoder(Encoder(start.model), tmp_path / "start.pt", start)
    options.append(f"model.start={tmp_path / 'start.pt'}")
    result = CliRunner().invoke(app, ["whiten", "--config", "lite2_whiten", *options])
    assert result.exit_code == 0, result.output
    assert load_encoder(tmp_path / "run" / "checkpoint.pt")[1].model.aggregation == "gem_vlad"


def fitted():
    """Recipes of ``fit`` on pictures: the others have a map, or say which command they are for."""
    texts = {file.stem: file.read_text() for file in configs()["."] if file.stem not in {"adapt", "singeo_panorama"}}
    return [name for name, text in texts.items() if "aerofix-train fit" in text or "aerofix-train" not in text]


@pytest.mark.parametrize("name", fitted())
def test_a_shipped_models_recipe_starts(name, places, tmp_path):
    """With the pictures at hand: of one date, and no cache."""
    start([name], places("simulated"), tmp_path / "run", **PICTURES, **STILL, **{"model.image_size": 64})


def test_the_recipe_that_adapts_to_a_map_starts(tmp_path, write_tiff):
    """The smallest map that the file promises room on: 600 by 480 m."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 480, 600), dtype=np.uint8)
    area = write_tiff(tmp_path / "area.tif", pixels, "EPSG:32651", 500_000, 2_680_000, 1.0)
    start(["adapt"], tmp_path, tmp_path / "run", **{"data.map": area, "model.start": "null", "model.image_size": 64})


def test_tiles_of_singeo_stay_upright(places, tmp_path, monkeypatch):
    """Its curriculum begins without a turn; the data's own quarter turns would void that."""
    seen = []
    monkeypatch.setattr("training.data.images.augment_pair", lambda *a, turns, **k: seen.append(turns) or _still(*a))
    start(["singeo", "sues200"], places("sues200"), tmp_path / "a")
    assert set(seen) == {"none"}
    seen.clear()
    start(["sample4geo", "sues200"], places("sues200"), tmp_path / "b")
    assert set(seen) == {"tile"}


def _still(photo, tile, offset, generator):
    images = (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in (photo, tile))
    return tuple(images), offset


def test_list_names_every_config_with_what_it_is():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0, result.output
    for name in (*METHODS, *DATA, *RECIPES):
        assert re.search(rf"^  {name} +\S+ \S+.*[.)]$", result.stdout, re.MULTILINE), name  # a whole sentence


def test_a_name_that_is_none_lists_those_that_are(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match=r"no config sample5geo: give a file, or one of .*sample4geo, .*vigor"):
        find_config("sample5geo")
    assert find_config("adapt") == CONFIGS / "adapt.yaml"
    (tmp_path / "vigor").mkdir()  # a folder of that name is no config
    monkeypatch.chdir(tmp_path)
    assert find_config("vigor") == CONFIGS / "data" / "vigor.yaml"
    assert find_config("some/where.yaml").name == "where.yaml"


def test_two_configs_and_a_missing_folder_are_told_in_one_sentence(tmp_path):
    result = CliRunner().invoke(
        app, ["fit", "--config", "sample4geo", "--config", "sues200", f"data.root={tmp_path}/none"]
    )
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert "is not a SUES-200 folder" in result.stderr
