"""The page and its modules, as the whole service hands them out."""

import re
from importlib.resources import files

WEB = files("service") / "web"
MODULES = sorted(path.name for path in WEB.iterdir() if path.name.endswith(".js"))
KEY = "writer-0123456789"


def script(name):
    return (WEB / name).read_text()


async def test_anybody_may_load_the_page_but_not_the_map(start, problem_of):
    async with start(write_keys=(KEY,)) as http:
        for path in ("/", "/web/style.css", "/web/leaflet/leaflet.js", *(f"/web/{name}" for name in MODULES)):
            assert (await http.get(path)).status_code == 200
        problem_of(await http.get("/maps"), "unauthorized", 401)
        problem_of(await http.get("/web/nothing.js"), "not-found", 404)
        problem_of(await http.get("/web/..%2fapp.py"), "not-found", 404)


async def test_the_page_works_below_any_path():
    pages = [script("index.html"), *map(script, MODULES)]
    assert not [link for page in pages for link in re.findall(r'(?:href|src)="/[^"]*|(?:ask|askJson)\(["`]/', page)]


def test_every_module_that_is_imported_is_there():
    for name in MODULES:
        wanted = re.findall(r'import \{ ([^}]+) \} from "\./([\w.]+)"', script(name))
        for names, module in wanted:
            exported = re.findall(r"^export (?:async )?(?:const|function\*?|class) ([\w$]+)", script(module), re.M)
            assert set(names.split(", ")) <= set(exported), (name, module)


async def test_the_scripts_read_what_the_service_answers(http):
    schemas = (await http.get("/openapi.json")).json()["components"]["schemas"]
    fields = {name: set(schema.get("properties", ())) for name, schema in schemas.items()}
    reads = [
        ("answer.js", r"\bposition\.(\w+)", "Position"),
        ("answer.js", r"\bcamera\.(\w+)", "Camera"),
        ("answer.js", r"\bcandidate\.(\w+)", "Candidate"),
        ("answer.js", r"\banswer\.(\w+)", "Localization"),
        ("answer.js", r"\bquery\.(\w+)", "Query"),
        ("drawing.js", r"\bcamera\.(\w+)", "Camera"),
        ("maps.js", r"(?<![\w.])state\.(bounds|origin|date|gsd_m|windows|levels|bytes)\b", "MapState"),
        ("view.js", r"(?<![\w.])state\.(\w+)", "MapState"),
        ("flight.js", r"\bvelocity\??\.(\w+)", "Velocity"),
        ("flight.js", r"\banswer\.(\w+)", "TrackedLocalization"),
    ]
    for module, pattern, schema in reads:
        found = set(re.findall(pattern, script(module)))
        assert found
        assert found <= fields[schema], (module, schema)
    taken = re.findall(r"const \{ ([\w, ]+) \} = answer;", script("answer.js"))
    assert set(taken[0].split(", ")) <= fields["Localization"]
    states = re.findall(r"^  (\w+): \"", script("answer.js").split("MEANING")[0], re.M)
    assert set(states) == set(schemas["Localization"]["properties"]["status"]["enum"])
