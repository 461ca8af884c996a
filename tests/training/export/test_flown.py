import csv
import json

import numpy as np
import pytest

from training.errors import TrainingError
from training.export import flown
from training.export.flown import read_flown


@pytest.fixture
def table(tmp_path):
    """Five photos of one flight, three of another, and one of a place that no map shows."""
    names = [f"one/{i}.jpg" for i in range(5)] + [f"two/{i}.jpg" for i in range(3)] + ["else/0.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "maps.gallery").touch()
    path = tmp_path / "photos.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "lat", "lon"))
        rows.writerows((name, 60.0, 24.0 + i / 1000) for i, name in enumerate(names[:-1]))
        rows.writerow((names[-1], "", ""))
    return path


def read(table, **changes):
    text = table.read_text()
    for before, after in changes.items():
        text = text.replace(before, after)
    table.write_text(text)
    return read_flown(table, table.with_name("maps.gallery"))


def test_the_second_half_of_each_folder_is_judged(table):
    found = read(table)
    assert found.judged.tolist() == [False] * 3 + [True] * 2 + [False] * 2 + [True] + [False]
    assert found.photos[0] == table.with_name("one") / "0.jpg"
    assert np.isnan(found.places).all(axis=1).tolist() == [False] * 8 + [True]


def test_answers_are_measured_in_sides_of_their_first_window_wherever_they_are(table, monkeypatch):
    """At 60° north a degree of longitude is half as long as one of latitude."""
    side_lat = 0.001
    tile = {"lat": 60.0, "lon": 24.0, "bounds": [24 - side_lat, 60 - side_lat / 2, 24 + side_lat, 60 + side_lat / 2]}
    candidate = {"score": 0.5, "inliers": 60, "support": 55.5, "tile": tile}
    position = {"lat": 60.0 + side_lat / 4, "lon": 24.0 + side_lat, "heading_deg": 0.0, "sigma_m": 11.1195}
    told = [{"candidates": [candidate], "position": position}] * 8
    told.append({"candidates": [candidate], "position": position | {"heading_deg": None}})
    asked = []
    monkeypatch.setattr(flown, "run_aerofix", lambda *words: asked.append(words) or "\n".join(map(json.dumps, told)))
    found = read(table).rehearse("model.onnx")
    assert "--no-exif" in asked[0]
    np.testing.assert_allclose(found.positions, [(0.5, 0.25)] * 9, rtol=1e-3)
    np.testing.assert_allclose(found.truth[2], (0.002 / 0.002, 0), rtol=1e-3)
    np.testing.assert_allclose(found.spread[:8], 0.1, rtol=1e-2)
    assert np.isnan(found.spread[8])
    assert (found.support[:, 0] == 55.5).all()
    assert found.real.all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file,lat,lon": "file,lat"}, "must have the columns file, lat, lon"),
        ({"one/0": "one/gone"}, r"no file .*gone\.jpg"),
        ({"24.001": "east"}, "lat and lon must be degrees, or empty"),
    ],
)
def test_what_is_missing_is_named(table, changes, reason):
    with pytest.raises(TrainingError, match=reason):
        read(table, **changes)


def test_a_table_that_is_none(table):
    with pytest.raises(TrainingError, match="cannot be read"):
        read_flown(table.with_name("none.csv"), table)
