from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.base import Task
from training.evaluation.embed import embed
from training.evaluation.failures import worst_failures
from training.evaluation.protocol import judge
from training.evaluation.report import write_report

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>../../[red]&amp;.jpg'
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags and texts of a page; a tag that is closed in the wrong place, or never, is an error."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.fixture
def outcome(make_task, mean_colours):
    """A task of 16 queries, each beside its place in the gallery, of which the second half gets wrong answers."""

    def make(**options):
        task = make_task(places=8, noise=0.1, **options)
        asked, held = (embed(mean_colours, images, quiet=True) for images in (task.queries, task.gallery))
        asked[8:] = -asked[8:]
        return judge(task, asked, held, "full")

    return make


def write(folder, outcomes, **options):
    write_report(folder, "model on data", outcomes, **options)
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_worst_failures_come_first_and_are_failures(outcome):
    result = outcome()
    failures = worst_failures(result, 100)
    assert [f.rank for f in failures] == sorted((f.rank for f in failures), reverse=True)
    assert sorted(f.query for f in failures) == np.flatnonzero(result.ranking.first > 0).tolist()
    assert set(range(8, 16)) <= {f.query for f in failures}
    assert [f.query for f in worst_failures(result, 3)] == [f.query for f in failures[:3]]


def test_a_failure_shows_query_truth_and_answers(outcome):
    result = outcome()
    failure = worst_failures(result, 1)[0]
    query, truth, *answers = failure.shots
    place = int(result.task.queries.place[failure.query])
    assert (query.mark, query.name, query.facts) == ("query", f"{failure.query:04d}.jpg", (f"place {place}",))
    assert (truth.mark, truth.name) == ("truth", f"{place:04d}.jpg")
    assert truth.facts == (f"place {place}", f"score {result.ranking.truth_score[failure.query]:.3f}", "0 m away")
    assert [shot.title for shot in answers] == [f"answer {i}" for i in range(1, 6)]
    first = int(result.ranking.top[failure.query, 0])
    assert answers[0].mark == "wrong"
    assert answers[0].facts[-1] == f"{abs(first - place) * 111.195:.0f} m away"  # places lie 0.001° apart


def test_marks_tell_right_and_part_from_wrong(make_task, mean_colours):
    """The best answer shows part of the place; the second is right, the others are wrong."""
    held = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    whole = make_task(places=4, distractors=0, positions=False)
    task = Task("t", whole.queries, whole.gallery, [np.array([1])] * 8, [np.array([0])] * 8)
    shots = worst_failures(judge(task, np.tile(held[:1], (8, 1)), held, "full"), 1)[0].shots
    assert [shot.mark for shot in shots] == ["query", "truth", "part", "right", "wrong", "wrong"]
    assert shots[2].facts == ("place 0", "score 1.000")  # without positions there are no metres


def test_queries_without_a_positive_are_left_out(make_task):
    task = make_task(places=2, distractors=0)
    nobody = Task("t", task.queries, task.gallery, [np.array([], np.int64)] * 4)
    outcome = judge(nobody, np.eye(2, dtype=np.float32)[[0, 0, 1, 1]], np.eye(2, dtype=np.float32), "full")
    assert worst_failures(outcome, 10) == []


def test_the_page_works_from_the_folder_alone(outcome, tmp_path):
    page = write(tmp_path / "deep" / "report", [outcome()])
    links = [attrs["src"] for attrs in page.all("img")]
    assert len(links) == 7 * len(page.all("article")) > 0
    for link in links:
        with Image.open(tmp_path / "deep" / "report" / link) as picture:
            assert (picture.format, picture.size) == ("JPEG", (192, 192))
    assert not page.all("script")
    assert not page.all("link")
    assert not [attrs for _, attrs in page.tags for value in attrs.values() if value and "://" in value]
    assert all(attrs["alt"] for attrs in page.all("img"))
    style = Path(write_report.__code__.co_filename).with_name("report.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
    assert any(style in text for text in page.texts)


def test_hostile_names_stay_text(outcome, tmp_path):
    page = write(tmp_path, [outcome(name=HOSTILE, file_names=[f"{i}{HOSTILE}" for i in range(16)])])
    assert not page.all("script")
    assert all(attrs["src"].startswith("thumbnails/0-") for attrs in page.all("img"))
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert any(text.endswith(HOSTILE) for text in page.texts)
    assert any(attrs.get("title", "").endswith(HOSTILE) for attrs in page.all("span"))
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "sheet.png", "thumbnails"}


def test_every_task_has_its_failures_and_both_galleries_their_row(outcome, tmp_path):
    one, other = outcome(), outcome(name="satellite_to_drone")
    grid = {"queries": 16, "rotations_deg": [0, 30], "crop_shares": [0.5], "recall@1": [[0.75, 0.125]], "mean": 0.4375}
    page = write(tmp_path, [one, other], grids={"satellite_to_drone": grid})
    assert len([text for text in page.texts if text.endswith("to satellite, full gallery")]) == 1
    assert len([text for text in page.texts if text.endswith("to drone, full gallery")]) == 1
    assert "75.00" in page.texts
    assert "12.50" in page.texts
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 7 * 192
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert {(0x25, 0x63, 0xEB), (0xDC, 0x26, 0x26)} <= colours  # frames of truths and of wrong answers


def test_what_is_measured_further_has_its_tables(outcome, tmp_path):
    metres = {"queries": 16.0, "error_median_m": 1.25, "error_mean_m": 2.5, "centre_median_m": 7.75}
    shares = {"within_1m": 0.375, "within_5m": 0.875, "within_10m": 1.0}
    scores = {"orientation": 0.8125, "coverage": 0.6875}
    assert "OC over rotations" not in write(tmp_path, [outcome()]).texts
    page = write(tmp_path, [outcome()], found={"there": {"locate": metres | shares, "consistency": scores}, "back": {}})
    texts = [text for text in page.texts if text.strip()]
    row = texts.index("there")
    assert texts[row + 1 : row + 8] == ["16", "1.2 m", "2.5 m", "37.50", "87.50", "100.00", "7.8 m"]
    assert {"Grad-CAM maps of turned and cropped queries.", "OC over rotations", "0.812", "0.688"} <= set(page.texts)


def test_no_failures_is_a_page_too(make_task, mean_colours, tmp_path):
    task = make_task(places=3, noise=0.0)
    asked, held = (embed(mean_colours, images, quiet=True) for images in (task.queries, task.gallery))
    page = write(tmp_path, [judge(task, asked, held, "full")])
    assert not page.all("article")
    assert "0 of 6 queries are not answered right at once." in page.texts
    assert (tmp_path / "sheet.png").exists()


def test_a_gallery_smaller_than_five_shows_what_there_is(make_task, memory_images, tmp_path):
    task = make_task(places=2, distractors=0, positions=False)
    outcome = judge(task, np.eye(2, dtype=np.float32)[[1, 1, 0, 0]], np.eye(2, dtype=np.float32), "full")
    page = write(tmp_path, [outcome])
    assert len(page.all("img")) == 4 * len(page.all("article")) == 16
