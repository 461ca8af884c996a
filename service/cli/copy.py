"""``aerofix gallery copy``: windows between a gallery file and Milvus, for many services on one map."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from service.cli.common import log_for_people, make_settings
from service.cli.terminal import progress_bar, say
from service.errors import GalleryUnusable
from service.ground.exchange import chosen, dim_of, pull, push
from service.ground.index.collection import Collection
from service.ground.store.store import Store


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A gallery file, or the address of Milvus.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The other of the two; a file that has the maps.")],
    maps: Annotated[
        list[str] | None, typer.Option("--map", metavar="MAP", help="Copy this map alone; repeated for several.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="Name of the collection; default: AEROFIX_MILVUS_COLLECTION, or aerofix.")
    ] = None,
) -> int:
    """Copy the windows of maps from a gallery file to Milvus, or back, and compare both."""
    addresses = [each for each in (source, target) if "://" in each]
    if len(addresses) != 1:
        raise typer.BadParameter("give a gallery file and the address of Milvus, such as http://127.0.0.1:19530.")
    to_milvus = target == addresses[0]
    file = Path(source if to_milvus else target)
    if not file.exists():
        raise GalleryUnusable(f"there is no gallery at {file}; it has the maps whose windows are copied.")
    settings = make_settings(milvus_uri=addresses[0], milvus_collection=collection)
    log_for_people(settings)
    with closing(Store(file, read_only=to_milvus)) as store, progress_bar() as bar:
        wanted = chosen(store, maps or ())
        held = Collection.of(settings, store.identity or "", dim_of(store))
        task = bar.add_task(file.name, total=None)
        copied = (push if to_milvus else pull)(store, wanted, held, lambda rows: bar.advance(task, rows))
        held.close()
    what = f"{copied.windows} windows of {len(wanted)} maps"
    say(f"{file} and collection {held.name}: {what}, the same; sampled queries find {copied.recall:.1%}")
    return 0
