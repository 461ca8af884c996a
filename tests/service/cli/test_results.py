"""Files of answers: whole after each of them, gone on with, and never somebody else's."""

import csv
import io
import json
from xml.etree import ElementTree

import pytest

from aerofix.models import Problem
from service.cli.answers import ENDINGS, FORMATS, Answered
from service.cli.results import Results, ResultsUnusable, Stream

NASTY = 'a "photo", <b>\\n & 灯台.jpg'


def answered(name):
    return Answered(name, Problem(type="/problems/image-truncated", title="T", status=422, detail=f"of {name}"))


def names_json(text):
    return [json.loads(line)["file"] for line in text.splitlines()]


def names_csv(text):
    return [row["file"] for row in csv.DictReader(io.StringIO(text))]


def names_geojson(text):
    return [feature["properties"]["photo"] for feature in json.loads(text)["features"]]


def names_kml(text):
    kml = "{http://www.opengis.net/kml/2.2}"
    return [each.findtext(f"{kml}name") for each in ElementTree.fromstring(text).iter(f"{kml}Placemark")]


READERS = {"json": names_json, "csv": names_csv, "geojson": names_geojson, "kml": names_kml}


@pytest.fixture(params=READERS)
def form(request):
    return request.param


def test_all_formats_are_tested():
    assert set(READERS) == set(FORMATS) == set(ENDINGS.values())


def test_a_file_is_whole_after_each_answer(tmp_path, form):
    path, written = tmp_path / "out", []
    with Results(path, form) as results:
        assert READERS[form](path.read_text()) == []
        for name in ("a.jpg", NASTY, "c.jpg"):
            results.write(answered(name))
            written.append(name)
            assert READERS[form](path.read_text()) == written


def test_a_file_is_gone_on_with(tmp_path, form):
    path = tmp_path / "out"
    for new in (["a.jpg", NASTY], [], ["c.jpg"]):
        with Results(path, form) as results:
            for name in new:
                results.write(answered(name))
    with Results(path, form) as results:
        assert results.done == dict.fromkeys(["a.jpg", NASTY, "c.jpg"], "error")
    assert READERS[form](path.read_text()) == ["a.jpg", NASTY, "c.jpg"]


def test_what_a_kill_left_is_mended(tmp_path, form):
    path = tmp_path / "out"
    with Results(path, form) as results:
        results.write(answered("a.jpg"))
        results.write(answered(NASTY))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with Results(path, form) as results:
            assert set(results.done) <= {"a.jpg", NASTY}
            for name in ("a.jpg", NASTY):
                if name not in results.done:
                    results.write(answered(name))
        assert sorted(READERS[form](path.read_text())) == sorted(["a.jpg", NASTY]), length


@pytest.mark.parametrize("text", ["my notes", "my notes\n", '{"type": "FeatureCollection"}', "\xff\xfe", "file,lat\n"])
def test_other_files_are_left_alone(tmp_path, form, text):
    path = tmp_path / "out"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsUnusable, match="name another file"):
        Results(path, form)
    assert path.read_bytes() == text.encode("latin-1")


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(ResultsUnusable, match="cannot be written"):
        Results(tmp_path / "no" / "out", "json")


@pytest.mark.parametrize("names", [[], ["a.jpg"], ["a.jpg", NASTY]])
def test_stdout_gets_the_same(capsys, form, names, tmp_path):
    with Stream(FORMATS[form]) as out, Results(tmp_path / "out", form) as results:
        for name in names:
            out.write(answered(name))
            results.write(answered(name))
    written = capsys.readouterr().out
    assert written == (tmp_path / "out").read_text()
    assert READERS[form](written) == names


def test_who_reads_lines_waits_for_no_other(capsys):
    with Stream(FORMATS["json"]) as out:
        out.write(answered("a.jpg"))
        assert capsys.readouterr().out.endswith("}\n")
