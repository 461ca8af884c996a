"""``aerofix map``: the maps of the gallery, one by one."""

import json
from typing import Annotated

import typer
from rich.table import Table

from aerofix.models import MapState
from service.cli.common import DEFAULT_URL, DeviceName, GalleryFile, ModelFile, Url, command, reach
from service.cli.gallery import add
from service.cli.terminal import out, remark, say, say_json

map_app = typer.Typer(help="The maps that the gallery holds.", no_args_is_help=True)
map_app.command("add")(add)

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON, one object a line.")]


@command(map_app, "list")
async def list_(
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """List the maps, in the order in which they were added."""
    async with reach(url, gallery, model, device) as client:
        maps = (await client.maps()).maps
    if as_json:
        for each in maps:
            say_json(each.model_dump(), indent=None)
        return 0
    if not maps:
        remark("no map yet; add one with `aerofix map add SOURCE`.")
    table = Table(
        "map", "windows", "gsd m", "zooms", "west", "south", "east", "north", "date", "MB", box=None, pad_edge=False
    )
    table.columns[0].overflow = "fold"
    for each in maps:
        table.add_row(*_cells(each))
    out.print(table)
    return 0


@command(map_app, "show")
async def show(
    name: Annotated[str, typer.Argument(metavar="MAP", help="Name of the map.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Show where a map lies, how fine it is, and the sides of the windows in which photos are found."""
    async with reach(url, gallery, model, device) as client:
        found = (await client.map(name)).model_dump()
    if as_json:
        say_json(found, indent=None)
        return 0
    for key, value in found.items():
        say(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return 0


@command(map_app, "delete")
async def delete(
    names: Annotated[list[str], typer.Argument(metavar="MAP…", help="Names of the maps.")],
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Delete maps with all that they hold; imports that add to them end."""
    async with reach(url, gallery, model, device) as client:
        for name in names:
            answer = await client.delete_map(name)
            say(f"deleted map {name}, {answer.deleted} windows; the gallery holds {answer.count}")
    return 0


def _cells(each: MapState) -> list[str]:
    zooms = ",".join(str(level.zoom) for level in each.levels)
    bounds = [f"{degrees:.5f}" for degrees in each.bounds]
    size = f"{each.bytes / 1e6:.1f}"
    return [each.name, str(each.windows), f"{each.gsd_m:.3f}", zooms, *bounds, each.date or "-", size]
