"""``aerofix gallery``: fill the map that photos are looked up in, look into it, copy it, embed it again."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from aerofix.async_client import AsyncClient
from aerofix.models import StoredTile
from aerofix.options import ImportOptions
from service.cli.common import (
    DEFAULT_URL,
    DeviceName,
    GalleryFile,
    ModelFile,
    Url,
    command,
    fail,
    log_for_people,
    make_settings,
    reach,
)
from service.cli.imports import add as add_map
from service.cli.imports import is_everybodys
from service.cli.terminal import complain, out, progress_bar, remark, say, say_json, warn
from service.errors import AerofixError
from service.importing.options import Scheme

TILES_PER_PAGE = 1000

gallery_app = typer.Typer(help="The map that photos are looked up in.", no_args_is_help=True)

Bbox = Annotated[
    str | None, typer.Option(metavar="W,S,E,N", help="Tiles whose centre lies in these degrees; west first.")
]


@command(gallery_app, "add")
async def add(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE…",
            help="GeoTIFF or another map, a folder or zip of z/x/y tiles, a CSV of corners, an image with --corners; "
            "none with --map and --elevation, for a map that is there.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--map", help="Name of the map; default: the file's name without its suffix.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of the map of this name.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Add to the map of this name.")] = False,
    scheme: Annotated[
        Scheme | None, typer.Option(help="How the rows of z/x/y tiles are counted: xyz (from the north) or tms.")
    ] = None,
    tile_size_m: Annotated[
        list[float] | None,
        typer.Option(
            help="For experts: side of the windows in metres, repeated for several; without it the map is searched at "
            "every scale from which a drone looks."
        ),
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="For experts: share of a window that its neighbour repeats, 0.5 or 0.")
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(
            help="When its pictures were taken: 2024-05-17, 2024-05, 2024, or first and last with a slash; default: as "
            "the file says."
        ),
    ] = None,
    corners: Annotated[Path | None, typer.Option(help="JSON with the four corners of an image.")] = None,
    elevation: Annotated[
        Path | None,
        typer.Option(
            help="How high the map's ground is: a raster of one band, metres above sea level; cameras over hills are "
            "then placed right."
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Add maps to the gallery: photos are found in them at every scale. One that is refused stops no other."""
    sources = sources or []
    if not sources and (name is None or elevation is None):
        raise typer.BadParameter("give a SOURCE; or --map and --elevation, for a map that is there.")
    if elevation is not None and len(sources) > 1 and not extend:
        raise typer.BadParameter("--elevation is that of one map; give one SOURCE, or --extend to make one of all.")
    if name is not None and len(sources) > 1 and not extend:
        raise typer.BadParameter("--map is the name of one map; give one SOURCE, or --extend to make one of all.")
    options = ImportOptions(
        map=name,
        replace=replace or None,
        extend=extend or None,
        scheme=scheme,
        tile_size_m=tile_size_m or None,
        overlap=overlap,
        date=date,
    )
    failed = 0
    async with reach(url, gallery, model, device, must_exist=False) as client:
        for source in sources:
            try:
                state = await add_map(client, source, corners, **options)
            except AerofixError as error:
                if len(sources) == 1 or is_everybodys(error):
                    raise
                complain(error.detail if source.name in error.detail else f"{source}: {error.detail}")
                failed += 1
                continue
            failed += state.state != "done" or bool(state.failed)
            name = state.map
        if elevation is not None and name is not None and not failed:
            await _add_elevation(client, name, elevation)
        count = (await client.gallery()).count
    say(f"the gallery holds {count} windows")
    return 1 if failed else 0


async def _add_elevation(client: AsyncClient, name: str, file: Path) -> None:
    """Store how high a map's ground is, and say what was understood."""
    told = await client.add_elevation(name, file)
    for warning in told.warnings:
        warn(warning)
    say(
        f"{file.name}: the ground of map {name} is {told.low_m:.0f} to {told.high_m:.0f} m high, known every "
        f"{told.step_m:.3g} m on {told.covers:.0%} of it"
    )


@command(gallery_app, "info")
async def info(
    url: Url = DEFAULT_URL, gallery: GalleryFile = None, model: ModelFile = None, device: DeviceName = None
) -> int:
    """Show count, bounds, generation and model of the gallery."""
    async with reach(url, gallery, model, device) as client:
        state = await client.gallery()
    for key, value in state.model_dump().items():
        say(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return 0


@command(gallery_app, "list")
async def list_(
    bbox: Bbox = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many tiles.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """List the tiles, in the order in which they were added."""
    table = Table("id", "lat", "lon", "gsd m", "properties", box=None, pad_edge=False)
    table.columns[0].overflow = "fold"
    left = limit
    cursor: str | None = "0"
    async with reach(url, gallery, model, device) as client:
        while cursor is not None and (left is None or left > 0):
            page = await client.tiles(min(TILES_PER_PAGE, left or TILES_PER_PAGE), cursor, bbox)
            cursor = page.cursor
            left = None if left is None else left - len(page.tiles)
            for tile in page.tiles:
                if as_json:
                    say_json(tile.model_dump(), indent=None)
                else:
                    table.add_row(*_cells(tile))
    if not as_json:
        out.print(table)
    return 0


@command(gallery_app, "delete")
async def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Tiles to delete.")] = None,
    bbox: Bbox = None,
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Delete tiles, by id or by area."""
    if bool(ids) == bool(bbox):
        raise typer.BadParameter("give the ids of tiles, or --bbox.")
    async with reach(url, gallery, model, device) as client:
        answers = [await client.delete_area(bbox)] if bbox else [await client.delete_tile(one) for one in ids or []]
    deleted = sum(answer.deleted for answer in answers)
    say(f"deleted {deleted}; the gallery holds {answers[-1].count} tiles")
    return 0


@command(gallery_app, "snapshot")
async def snapshot(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; must not exist.")],
    url: Url = DEFAULT_URL,
    gallery: GalleryFile = None,
    model: ModelFile = None,
    device: DeviceName = None,
) -> int:
    """Copy the gallery, while it is in use; the copy is read and checked before this ends."""
    if file.exists():
        fail(f"{file} exists; name another file.")
    async with reach(url, gallery, model, device) as client:
        await client.snapshot(file)
    say(f"{file}: {file.stat().st_size} bytes")
    return 0


@gallery_app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")],
    gallery: GalleryFile = None,
) -> None:
    """Put a snapshot in the place of the gallery file, which no service may use meanwhile; the old one is kept."""
    from service.ground.store.copies import restore as put_back

    target = make_settings(gallery=gallery).gallery
    try:
        count, replaced = put_back(file, target)
    except AerofixError as error:
        fail(error.detail)
    say(f"{target} holds {count} tiles")
    if replaced is not None:
        say(f"what was there before is {replaced}")


@gallery_app.command("reembed")
def reembed(gallery: GalleryFile = None, model: ModelFile = None, device: DeviceName = None) -> None:
    """Embed all tiles again with another model, from the images in the gallery file; goes on where it was stopped."""
    from service.importing.reembed import reembed as embed_again

    settings = make_settings(gallery=gallery, model=model, device=device)
    log_for_people(settings)
    if not settings.gallery.exists():
        fail(f"there is no gallery at {settings.gallery}; name it with --gallery FILE.")
    try:
        with progress_bar() as progress:
            task = progress.add_task(settings.gallery.name, total=None)
            result = embed_again(settings, lambda done, total: progress.update(task, completed=done, total=total))
    except AerofixError as error:
        fail(error.detail)
    what = f"{result.windows} windows and {result.tiles} single pictures"
    say(f"embedded {what} with {result.model_id}")
    if result.small:
        remark(
            f"{result.small} images are smaller than the {result.image_size} pixels that this model looks at; for its "
            "full accuracy add the map again."
        )


def _cells(tile: StoredTile) -> list[str]:
    properties = json.dumps(tile.properties, ensure_ascii=False) if tile.properties else ""
    return [tile.id, f"{tile.lat:.6f}", f"{tile.lon:.6f}", f"{tile.gsd_m:.3f}", properties]
