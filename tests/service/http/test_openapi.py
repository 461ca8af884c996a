import json
from typing import Annotated

import pytest
from fastapi import FastAPI, Form

from service.app import create_app
from service.http.openapi import describe
from service.settings import Settings


@pytest.fixture
def description(tmp_path, tiny_model):
    app = create_app(Settings(model=tiny_model(tmp_path / "m.onnx"), gallery=tmp_path / "g", device="cpu"))
    app.state.gallery.close()
    return app.openapi()


def operations(description):
    return [(path, verb, op) for path, item in description["paths"].items() for verb, op in item.items()]


def test_every_reference_is_defined(description):
    text = json.dumps(description)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(description["components"]["schemas"])
    assert "Problem" in names
    assert "HTTPValidationError" not in text


def test_every_route_is_described(description):
    assert {(path, verb) for path, verb, _ in operations(description)} == {
        ("/localize", "post"),
        ("/maps", "get"),
        ("/maps/{map}", "get"),
        ("/maps/{map}", "delete"),
        ("/maps/{map}/elevation", "post"),
        ("/maps/{map}/elevation", "delete"),
        ("/maps/{map}/tilejson.json", "get"),
        ("/maps/{map}/{z}/{x}/{y}.webp", "get"),
        ("/gallery", "post"),
        ("/gallery", "get"),
        ("/gallery/tiles", "get"),
        ("/gallery/tiles", "delete"),
        ("/gallery/tiles/{tile_id}", "get"),
        ("/gallery/tiles/{tile_id}", "delete"),
        ("/gallery/tiles/{tile_id}/image", "get"),
        ("/gallery/imports", "post"),
        ("/gallery/imports", "get"),
        ("/gallery/imports/{import_id}", "get"),
        ("/gallery/imports/{import_id}", "delete"),
        ("/gallery/snapshots", "post"),
        ("/gallery/snapshots", "get"),
        ("/gallery/snapshots/{name}", "get"),
        ("/gallery/snapshots/{name}", "delete"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/model", "get"),
        ("/tracks", "post"),
        ("/tracks", "get"),
        ("/tracks/{track_id}", "get"),
        ("/tracks/{track_id}", "delete"),
        ("/tracks/{track_id}/localize", "post"),
        ("/tracks/{track_id}/history", "get"),
        ("/metrics", "get"),
        ("/timings", "get"),
    }
    for _, _, operation in operations(description):
        assert operation["description"]
        assert {"200", "201", "202", "204"} & set(operation["responses"])


def test_every_error_is_a_problem_document_with_an_example(description):
    for _, _, operation in operations(description):
        for status, response in operation["responses"].items():
            if status >= "400":
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                assert content["examples"]
                assert all(example["value"]["status"] == int(status) for example in content["examples"].values())


def test_forms_take_no_fields_but_their_own(description):
    schemas = description["components"]["schemas"]
    forms = [
        content["schema"]["$ref"].rpartition("/")[2]
        for _, _, operation in operations(description)
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "$ref" in content["schema"]
    ]
    assert len(forms) == 4
    assert all(schemas[form]["additionalProperties"] is False for form in forms)


def test_forms_can_be_filled_in_by_a_page(description):
    schemas = description["components"]["schemas"]
    assert schemas["Body_localize"]["properties"]["image"]["items"] == {"type": "string", "format": "binary"}
    assert schemas["Body_localize_next_photo"]["properties"]["image"]["format"] == "binary"
    forms = [schema for name, schema in schemas.items() if name.startswith("Body_")]
    assert not any("anyOf" in field for form in forms for field in form["properties"].values())


def test_operations_have_names_to_read(description):
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(set(names)) == len(names)
    assert not any("__" in name or name.endswith(("_get", "_post")) for name in names)


def test_localize_documents_its_form_its_errors_and_geojson(description):
    operation = description["paths"]["/localize"]["post"]
    assert set(operation["responses"]) == {
        "200",
        "400",
        "401",
        "403",
        "404",
        "408",
        "409",
        "413",
        "415",
        "422",
        "429",
        "503",
        "504",
        "507",
    }
    assert "Retry-After" in operation["responses"]["429"]["headers"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "application/geo+json"}
    reference = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["$ref"]
    form = description["components"]["schemas"][reference.rsplit("/", 1)[1]]["properties"]
    assert set(form) == {
        "image",
        "top_k",
        "prior_lat",
        "prior_lon",
        "prior_radius_m",
        "heading_deg",
        "pitch_deg",
        "roll_deg",
        "effort",
        "altitude_m",
        "hfov_deg",
        "ground_elevation_m",
        "use_exif",
        "use_exif_position",
        "maps",
        "refine",
        "matches",
    }
    assert (form["top_k"]["minimum"], form["top_k"]["maximum"], form["top_k"]["default"]) == (1, 100, 5)


def test_describing_twice_is_the_same(tmp_path, tiny_model):
    app = create_app(Settings(model=tiny_model(tmp_path / "m.onnx"), gallery=tmp_path / "g2", device="cpu"))
    assert app.openapi() == app.openapi()
    app.state.gallery.close()


def test_an_error_on_the_way_leaves_no_half_of_a_description(monkeypatch):
    app, whole = FastAPI(), FastAPI()
    for each in (app, whole):
        describe(each, keys_needed=True)
        each.get("/tiles")(lambda: None)
    with monkeypatch.context() as broken:
        broken.setattr("service.http.openapi.documented", lambda *kinds: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            app.openapi()
    assert app.openapi() == whole.openapi()
    assert "security" in app.openapi()["paths"]["/tiles"]["get"]


def test_a_field_of_several_types_keeps_them_all():
    app = FastAPI()

    @app.post("/sent")
    def sent(when: Annotated[float | str | None, Form()] = None) -> None:
        """Take it."""

    describe(app, keys_needed=False)
    (form,) = (form for name, form in app.openapi()["components"]["schemas"].items() if name.startswith("Body_"))
    assert form["properties"]["when"]["anyOf"] == [{"type": "number"}, {"type": "string"}]
